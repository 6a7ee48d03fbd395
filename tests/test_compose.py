"""docker-compose.yml: read by compose itself, and its commands run with the real server.

No Docker engine runs on the machines these tests are for, so no container is started here. What is checked instead:
the file as `docker compose config` (or docker-compose 1.29) understands it, and that its two shell commands, the
container's and the health check's, do what they say when bash runs them with the local tritonserver.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelwright.project.project import load
from modelwright.triton.client import connect
from tests.conftest import ROOT
from tests.ports import free_port, free_ports
from tests.server.models import shared_environment
from tests.waiting import PATIENCE_S, wait_until

FILE = ROOT / "docker-compose.yml"
SERVERS = ("triton", "triton-gpu")
pytestmark = pytest.mark.xdist_group("compose")  # what compose reads is cached in a process
VARIABLES = ("LOAD_", "TRITON_", "MODEL_", "POLL_", "HTTP_", "GRPC_", "METRICS_", "SHM_", "GPU_", "COMPOSE_", "PLAN_")


def compose_command() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, "version"], capture_output=True)
            if done.returncode == 0:
                return command
    return None


COMPOSE = compose_command()


@cache
def config(*profiles: str, **variables: str) -> dict[str, Any]:
    """The services as compose reads them, with its variables filled in and its defaults applied."""
    if COMPOSE is None:
        pytest.skip("neither `docker compose` nor docker-compose is installed")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLES)}
    chosen = [part for profile in profiles for part in ("--profile", profile)]
    done = subprocess.run(
        [*COMPOSE, "--file", str(FILE), "--project-directory", str(ROOT), *chosen, "config"],
        env={**kept, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return services


def container(service: str = "triton", **variables: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment of a container; compose prints $ as $$, the way it reads it."""
    data = config("gpu", **variables)[service]
    command = [part.replace("$$", "$") for part in data["command"]]
    return command, {name: str(value or "") for name, value in data["environment"].items()}


# --- without compose --------------------------------------------------------------------------------------------------


def test_the_file_is_for_the_release_that_the_project_is_for() -> None:
    """Checked where compose is not installed, too: the default of the tag, and the table that explains it."""
    text = FILE.read_text()
    release = load(ROOT).target.name
    assert re.findall(r"\$\{TRITON_RELEASE:-([^}]+)\}", text) == [release]
    assert re.findall(r"TRITON_RELEASE +(\S+)", text) == [release]
    images = {yaml.safe_load(text)["services"][name]["image"] for name in SERVERS}
    assert images == {f"nvcr.io/nvidia/tritonserver:${{TRITON_RELEASE:-{release}}}-py3"}


def test_every_server_mounts_the_repository_read_only_has_a_health_check_and_only_gpu_ones_have_gpus() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    assert set(services) == {*SERVERS, "plan-builder", "load-master", "load-worker"}
    for name in SERVERS:
        service = services[name]
        assert service["volumes"] == ["${MODEL_REPOSITORY:-./model_repository}:/models:ro"]
        assert "GET /v2/health/live " in service["healthcheck"]["test"][-1]
        assert ("deploy" in service) == (service.get("profiles") == ["gpu"]) == name.endswith("-gpu")


def test_the_table_of_variables_names_every_one_with_its_default() -> None:
    text = FILE.read_text()
    head, _, body = text.partition("x-triton:")
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", body))
    assert len(used) >= 9
    for name, default in used.items():
        assert re.search(rf"\b{name} +{re.escape(default)}( |$)", head, re.MULTILINE), name


# --- as compose reads it ----------------------------------------------------------------------------------------------


def test_the_default_is_one_service_on_the_cpu() -> None:
    services = config()
    # docker-compose 1.29 prints the services of profiles that are off too; what is off says so.
    on = {name: service for name, service in services.items() if not service.get("profiles")}
    assert list(on) == ["triton"]
    assert "deploy" not in on["triton"]
    assert "runtime" not in on["triton"]


def test_the_profile_gpu_adds_a_service_with_every_gpu() -> None:
    # docker-compose 1.29 prints the services of profiles that are off too.
    services = {name: item for name, item in config("gpu").items() if item.get("profiles") not in (["load"], ["plan"])}
    assert set(services) == set(SERVERS)
    (device,) = services["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert device["driver"] == "nvidia"
    assert device["count"] in ("all", -1)  # how v1 and v2 write it
    assert "deploy" not in services["triton"]


def test_the_number_of_gpus_is_a_variable() -> None:
    (device,) = config("gpu", GPU_COUNT="2")["triton-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert int(device["count"]) == 2


def test_the_plan_builder_has_the_gpus_reads_the_request_and_writes_the_result(tmp_path: Path) -> None:
    folders = {role: tmp_path / f"{role} of a: plan" for role in ("request", "result")}
    variables = {f"PLAN_{role.upper()}": str(folder) for role, folder in folders.items()}
    service = config("plan", PLAN_BUILDER_IMAGE="registry.lab:5000/plans:1", **variables)["plan-builder"]
    assert service["image"] == "registry.lab:5000/plans:1"
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"], device["count"] in ("all", -1)) == ("nvidia", ["gpu"], True)
    mounts = {volume["target"]: volume for volume in service["volumes"]}
    for role, folder in folders.items():
        mount = mounts[f"/plan/{role}"]
        assert (mount["type"], Path(mount["source"])) == ("bind", folder)
        assert mount.get("read_only", False) is (role == "request")
    assert service["command"] == ["sh", "/plan/request/start.sh", "/plan/request", "/plan/result"]
    assert "ports" not in service


def test_the_plan_builders_image_is_that_of_the_projects_target() -> None:
    project = load(ROOT)
    assert config("plan")["plan-builder"]["image"] == project.plan_places.image_for(project.target.name)


@pytest.mark.parametrize("service", ["triton", "triton-gpu"])
@pytest.mark.parametrize("mode", ["explicit", "poll"])
class TestEachService:
    def test_its_image_is_that_of_the_projects_target(self, service: str, mode: str) -> None:
        assert config("gpu", MODEL_CONTROL=mode)[service]["image"] == load(ROOT).target.image

    def test_the_repository_is_mounted_read_only(self, service: str, mode: str) -> None:
        (volume,) = config("gpu", MODEL_CONTROL=mode)[service]["volumes"]
        if isinstance(volume, str):  # v1
            volume = dict(zip(("source", "target", "read_only"), volume.split(":"), strict=True))
            volume["read_only"] = volume["read_only"] == "ro"
        assert volume["read_only"] is True
        assert volume["target"] == "/models"
        assert Path(volume["source"]) == load(ROOT).repository

    def test_its_ports_are_bound_to_this_machine_alone(self, service: str, mode: str) -> None:
        ports = config("gpu", MODEL_CONTROL=mode)[service]["ports"]
        found = [port_text(port) for port in ports]
        assert found == [f"127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002)]

    def test_it_has_a_health_check_on_the_live_endpoint(self, service: str, mode: str) -> None:
        check = config("gpu", MODEL_CONTROL=mode)[service]["healthcheck"]
        assert "GET /v2/health/live " in check["test"][-1]
        assert {"interval", "timeout", "retries", "start_period"} <= set(check)

    def test_it_has_shared_memory_and_time_to_stop(self, service: str, mode: str) -> None:
        data = config("gpu", MODEL_CONTROL=mode)[service]
        assert str(data["shm_size"]) in ("1gb", "1073741824")
        assert data["stop_grace_period"] == "40s"


def port_text(port: Any) -> str:
    if isinstance(port, str):  # v1
        return port.removesuffix("/tcp")
    return f"{port['host_ip']}:{port['published']}:{port['target']}"


def test_bind_address_and_ports_are_variables() -> None:
    ports = config(TRITON_BIND="0.0.0.0", HTTP_PORT="9000")["triton"]["ports"]
    assert port_text(ports[0]) == "0.0.0.0:9000:8000"


def test_another_release_can_be_asked_for() -> None:
    assert config(TRITON_RELEASE="26.06")["triton"]["image"] == "nvcr.io/nvidia/tritonserver:26.06-py3"


def test_the_profile_load_adds_a_master_and_workers() -> None:
    services = config("load", LOAD_MODEL="blobs", LOAD_PORT="9089")
    master, worker = services["load-master"], services["load-worker"]
    assert [port_text(port) for port in master["ports"]] == ["127.0.0.1:9089:8089"]
    assert not worker.get("ports")  # else no second one could be started
    assert "container_name" not in worker
    assert worker["command"] == ["--worker", "--master-host=load-master"]
    assert list(worker["depends_on"]) == ["load-master"]
    assert "triton" in services  # has no profile: `up` starts it too
    for service in (master, worker):
        assert service["image"] == "modelwright-load"
        assert Path(service["build"]["context"]) == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()


LOCUSTS_OPTIONS = """
import json, sys
from locust import argument_parser
from modelwright.loadtest.locust import options

parser = argument_parser.get_empty_argument_parser()
argument_parser.setup_parser_arguments(parser)
options.add_to(parser)
names = ("master", "worker", "host", "model", "protocol", "repository", "output", "master_host")
parsed = vars(parser.parse_args(sys.argv[1:]))
print(json.dumps([parsed[name] for name in names]))
"""


def load_command(service: str) -> list[str]:
    """With the defaults of its variables, also where compose is not installed."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text())
    command: list[str] = yaml.safe_load(text)["services"][service]["command"]
    return command


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        ("load-master", [True, False, "http://triton:8000", "digits", "http", "/models", "/reports", "127.0.0.1"]),
        ("load-worker", [False, True, None, "", "http", "model_repository", "", "load-master"]),
    ],
    ids=["master", "worker"],
)
def test_locust_takes_the_commands_of_the_profile_load(service: str, expected: list[Any]) -> None:
    """As the image's entry point does. In a process of its own: Locust changes the one that imports it."""
    done = subprocess.run(
        [sys.executable, "-c", LOCUSTS_OPTIONS, *load_command(service)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_the_image_copies_what_the_ignore_file_lets_through() -> None:
    """And what pyproject.toml packs into the wheel that it installs."""
    text = (ROOT / "loadtest" / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]}
    let_through = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


# --- the container's command ------------------------------------------------------------------------------------------


def arguments(tmp_path: Path, **variables: str) -> tuple[int, list[str], str]:
    """Run the container's command with a tritonserver that prints its arguments, beside a file that `*` would match."""
    command, environment = container(**variables)
    fake = tmp_path / "tritonserver"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    (tmp_path / "--load-model=trap").touch()
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


COMMON = ["--exit-on-error=false", "--disable-auto-complete-config"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ["--model-control-mode=explicit", "--load-model=*"]),
        ({"MODEL_CONTROL": "explicit"}, ["--model-control-mode=explicit", "--load-model=*"]),
        ({"MODEL_CONTROL": "poll"}, ["--model-control-mode=poll", "--repository-poll-secs=2"]),
        ({"MODEL_CONTROL": "poll", "POLL_SECS": "9"}, ["--model-control-mode=poll", "--repository-poll-secs=9"]),
    ],
    ids=["default", "explicit", "poll", "poll every 9 s"],
)
def test_one_variable_chooses_how_models_are_controlled(
    tmp_path: Path, variables: dict[str, str], expected: list[str]
) -> None:
    assert arguments(tmp_path, **variables) == (0, ["--model-repository=/models", *expected, *COMMON], "")


def test_further_arguments_come_last(tmp_path: Path) -> None:
    code, given, _ = arguments(tmp_path, TRITON_ARGS="--log-verbose=1 --cache-config=local,size=1048576")
    assert (code, given[-2:]) == (0, ["--log-verbose=1", "--cache-config=local,size=1048576"])


def test_a_misspelt_mode_ends_the_container_with_a_message(tmp_path: Path) -> None:
    code, given, message = arguments(tmp_path, MODEL_CONTROL="pol")
    assert (code, given, message) == (2, [], "MODEL_CONTROL is 'pol': explicit or poll is needed\n")


# --- with the real server ---------------------------------------------------------------------------------------------

MODEL_PY = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        named = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array)]) for array in named]
"""
CONFIG = """
name: "same" backend: "python" max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""


def healthy(port: int) -> bool:
    """What the container's health check says, asked of another port."""
    kind, *command = config()["triton"]["healthcheck"]["test"]
    assert kind == "CMD"
    command[-1] = command[-1].replace("$$", "$").replace("/dev/tcp/127.0.0.1/8000", f"/dev/tcp/127.0.0.1/{port}")
    return subprocess.run(command, capture_output=True, timeout=PATIENCE_S).returncode == 0


@contextmanager
def running(tmp_path: Path, mode: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The container's own command, as bash runs it; only the repository's place and the ports are others."""
    made = shared_environment()
    # The shell splits TRITON_ARGS at spaces, of which this checkout's path may have some.
    (tmp_path / "server").symlink_to(made.root)
    backends = tmp_path / "server" / made.backends.relative_to(made.root)
    made = replace(made, root=tmp_path / "server", backends=backends)
    version = tmp_path / "models/same/1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(MODEL_PY)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    http, grpc, metrics = free_ports(3)
    extra = f"--backend-directory={made.backends} --http-port={http} --grpc-port={grpc} --metrics-port={metrics}"
    extra += f" --http-address=127.0.0.1 --backend-config=python,shm-region-prefix-name=compose-{os.getpid()}"
    command, environment = container(MODEL_CONTROL=mode, TRITON_ARGS=extra, POLL_SECS="1")
    command[-1] = command[-1].replace("--model-repository=/models", f"--model-repository={tmp_path / 'models'}")
    variables = made.variables()
    variables["PATH"] = f"{made.server.parent}:{variables['PATH']}"
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**variables, **environment}, stdout=log, stderr=log, cwd=made.root)
    try:
        wait_until(lambda: healthy(http) or server.poll() is not None, "the server's start")
        assert server.poll() is None, (tmp_path / "server.log").read_text()
        yield server, http
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


@pytest.mark.server
@pytest.mark.parametrize("mode", ["explicit", "poll"])
def test_the_real_server_takes_the_command_serves_and_ends_when_docker_says_so(tmp_path: Path, mode: str) -> None:
    import numpy as np

    with running(tmp_path, mode) as (server, port):
        with connect(f"http://127.0.0.1:{port}") as client:
            assert client.infer("same", {"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[1.0, 1.0]]
        # `docker stop` signals the container's first process: bash has become the server.
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
        assert not healthy(port)


def test_the_health_check_fails_where_nothing_listens() -> None:
    assert not healthy(free_port())


def test_the_health_check_fails_where_the_answer_is_not_200() -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(400)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert not healthy(server.server_port)
        thread.join()
