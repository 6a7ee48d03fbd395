"""The life of a real tritonserver: it starts, serves, fails with a reason, and never outlives its purpose."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from modelwright.errors import ServerError
from modelwright.server.environment import Environment
from modelwright.server.local import Ports, running
from modelwright.triton.client import connect
from tests.server.models import config, double, identity, publish
from tests.waiting import PATIENCE_S, wait_until

PYTHON_MODEL = """
import helper
import triton_python_backend_utils as pb_utils
from pathlib import Path

class TritonPythonModel:
    def initialize(self, args):
        self.folder = Path(args["model_repository"]).resolve()
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", helper.double(r.inputs()[0].as_numpy()))])
                for r in requests]
    def finalize(self):
        (self.folder.parent.parent / "finalized").touch()
"""

HOST_PROGRAM = """
import os, sys, time
from pathlib import Path
from modelwright.server.local import running
from tests.server.models import shared_environment

folder = Path(sys.argv[1])
with running(shared_environment(), folder / "repository", log=folder / "server.log", models=["*"]) as server:
    if sys.argv[2] == "fork" and os.fork() == 0:
        time.sleep(600)  # holds a copy of every pipe
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    publish(folder, "doubled", double(), config())
    return folder


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs/server.log"


def processes_of(repository: Path) -> list[int]:
    """Every process that has the repository on its command line, by whatever path: server, supervisor, models."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().replace("=", "\0").split("\0")
        except OSError:
            continue
        paths = [os.path.realpath(part) for word in words for part in word.split() if part.startswith("/")]
        if any(Path(path).is_relative_to(repository) for path in paths):
            found.append(int(folder.name))
    return found


def shared_memory(pid: int) -> set[str]:
    """What the servers that a process started keep in /dev/shm."""
    return {path.name for path in Path("/dev/shm").glob(f"modelwright-{pid}-*")}


def test_it_serves_on_loopback_only(environment: Environment, repository: Path, log: Path) -> None:
    with running(environment, repository, log=log, models=["doubled"], stop_grace_s=0) as server:
        with connect(server.http) as client:
            assert client.infer("doubled", {"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2, 2, 2, 2]]
        listening = {
            local.rpartition(":")[0]
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
            for local, remote, state in [line.split()[1:4]]
            if state == "0A" and int(local.rpartition(":")[2], 16) in ports_of(server.http, server.grpc, server.metrics)
        }
        assert listening == {"0100007F"}
        assert server.failures() == {}
        assert server.alive
    assert not server.alive
    assert processes_of(repository) == []


def ports_of(*addresses: str) -> set[int]:
    return {int(address.rpartition(":")[2]) for address in addresses}


def test_the_metrics_endpoint_answers(environment: Environment, repository: Path, log: Path) -> None:
    with running(environment, repository, log=log, stop_grace_s=0) as server:
        host, _, port = server.metrics.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b"nv_" in connection.makefile("rb").read()


def test_two_servers_run_at_once(environment: Environment, repository: Path, tmp_path: Path) -> None:
    with (
        running(environment, repository, log=tmp_path / "a.log", models=["*"], stop_grace_s=0) as one,
        running(environment, repository, log=tmp_path / "b.log", models=["*"], stop_grace_s=0) as two,
    ):
        for server in (one, two):
            with connect(server.http) as client:
                assert client.infer("doubled", {"x": np.ones((1, 4), np.float32)})["y"].sum() == 8


def test_a_bad_model_is_reported_and_leaves_the_others_serving(
    environment: Environment, repository: Path, log: Path
) -> None:
    publish(repository, "bad", identity(), config(inputs=[("x", "TYPE_INT32", [4])]))
    with (
        running(environment, repository, log=log, models=["*"], stop_grace_s=0) as server,
        connect(server.http) as client,
    ):
        assert server.failures() == {
            "bad": "unable to load model 'bad', configuration expects datatype TYPE_INT32 for input 'x', "
            "model provides TYPE_FP32"
        }
        assert client.model_ready("doubled")


def test_a_configuration_that_does_not_parse_is_reported(environment: Environment, repository: Path, log: Path) -> None:
    publish(repository, "bad", identity(), "no_such_field: 1")
    with running(environment, repository, log=log, mode="none", stop_grace_s=0) as server:
        assert "doubled" not in server.failures()
        assert "failed to" in log.read_text()


def test_poll_mode_finds_a_new_version(environment: Environment, repository: Path, log: Path) -> None:
    with (
        running(environment, repository, log=log, mode="poll", stop_grace_s=0) as server,
        connect(server.http) as client,
    ):
        publish(repository.parent / "new", "doubled", double(), config(), version=2)
        (repository.parent / "new/doubled/2").rename(repository / "doubled/2")
        wait_until(lambda: client.model_ready("doubled", "2"))


@pytest.mark.parametrize(
    ("grace_s", "finalized"), [pytest.param(PATIENCE_S, True, id="enough"), pytest.param(0, False, id="none")]
)
def test_models_finalize_when_the_stop_grants_them_time(
    environment: Environment, tmp_path: Path, log: Path, grace_s: float, finalized: bool
) -> None:
    repository = tmp_path / "repository"
    publish(repository, "python", identity(), config().replace("onnxruntime", "python"))
    (repository / "python/1/model.py").write_text(PYTHON_MODEL)
    (repository / "python/1/helper.py").write_text("def double(x):\n    return 2 * x\n")
    with (
        running(environment, repository, log=log, models=["*"], stop_grace_s=grace_s) as server,
        connect(server.http) as client,
    ):
        assert client.infer("python", {"x": np.ones((1, 4), np.float32)})["y"].sum() == 8
    assert (tmp_path / "finalized").exists() == finalized
    assert not list(repository.rglob("__pycache__")), "a published version must not change"


def test_a_killed_server_is_noticed_and_cleaned_up(environment: Environment, repository: Path, log: Path) -> None:
    before = shared_memory(os.getpid())
    with running(environment, repository, log=log, models=["*"]) as server:
        assert shared_memory(os.getpid()) > before
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait(timeout_s=PATIENCE_S) == 128 + signal.SIGKILL
        assert not server.alive
    assert processes_of(repository) == []
    assert shared_memory(os.getpid()) == before


def test_waiting_for_a_server_can_time_out(environment: Environment, repository: Path, log: Path) -> None:
    with (
        running(environment, repository, log=log, stop_grace_s=0) as server,
        pytest.raises(ServerError, match=r"tritonserver at 127.0.0.1:\d+ is still running after 0.1 s"),
    ):
        server.wait(timeout_s=0.1)


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_parent_takes_the_server_with_it(
    environment: Environment, repository: Path, tmp_path: Path, how: str
) -> None:
    command = [sys.executable, "-c", HOST_PROGRAM, str(tmp_path), how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        assert server in processes_of(repository)
        assert shared_memory(parent.pid)
        parent.kill()
        parent.wait()
        try:
            wait_until(lambda: processes_of(repository) == [])
            wait_until(lambda: not shared_memory(parent.pid))
        finally:
            if how == "fork":
                os.killpg(parent.pid, signal.SIGKILL)


def test_a_server_survives_the_thread_that_started_it(environment: Environment, repository: Path, log: Path) -> None:
    context = running(environment, repository, log=log, stop_grace_s=0)
    servers = []
    thread = threading.Thread(target=lambda: servers.append(context.__enter__()))
    thread.start()
    thread.join()
    try:
        time.sleep(0.3)
        assert servers[0].alive
    finally:
        context.__exit__(None, None, None)


def test_the_server_stops_when_the_block_fails(environment: Environment, repository: Path, log: Path) -> None:
    with pytest.raises(ZeroDivisionError), running(environment, repository, log=log, stop_grace_s=0):
        raise ZeroDivisionError
    assert processes_of(repository) == []


@pytest.mark.parametrize("which", ["http", "grpc", "metrics"])
def test_a_taken_port_is_named(environment: Environment, repository: Path, log: Path, which: str) -> None:
    with socket.socket() as taken, socket.socket() as one, socket.socket() as two:
        for each in (taken, one, two):
            each.bind(("127.0.0.1", 0))
        taken.listen()
        port, *free = (each.getsockname()[1] for each in (taken, one, two))
        one.close()
        two.close()
        ports = Ports(**{name: port if name == which else free.pop() for name in ("http", "grpc", "metrics")})
        with (
            pytest.raises(
                ServerError, match=rf"tritonserver cannot listen on 127.0.0.1:{port}: Address already in use"
            ),
            running(environment, repository, log=log, ports=ports, stop_grace_s=0),
        ):
            pass


def test_a_server_that_ends_at_once_says_why(environment: Environment, repository: Path, log: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"ended while it was starting, exit code 1; (?s:.*)unrecognized option"),
        running(environment, repository, log=log, extra_arguments=["--no-such-option"]),
    ):
        pass


def test_a_server_that_takes_too_long_is_given_up(environment: Environment, repository: Path, log: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"did not answer within 0 s; its log: .*server.log"),
        running(environment, repository, log=log, startup_timeout_s=0, stop_grace_s=0),
    ):
        pass
    assert processes_of(repository) == []


def test_what_a_server_still_loads_is_told_and_stands_in_the_error(
    environment: Environment, repository: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "slow/1").mkdir(parents=True)
    (repository / "slow/1/model.py").write_text(
        "import time\n\n\nclass TritonPythonModel:\n    def initialize(self, args):\n        time.sleep(600)\n"
    )
    (repository / "slow/config.pbtxt").write_text(config().replace("onnxruntime", "python"))
    monkeypatch.setattr("modelwright.server.local._TELL_S", 0.5)
    said: list[str] = []
    with (
        pytest.raises(ServerError, match=r"tritonserver was still loading slow after 8 s; its log: ") as caught,
        running(environment, repository, log=log, models=["*"], startup_timeout_s=8, stop_grace_s=0, say=said.append),
    ):
        pass
    assert "--startup-timeout SECONDS" in caught.value.hint
    assert "startup_timeout = SECONDS in modelwright.toml" in caught.value.hint
    assert re.fullmatch(r"tritonserver is still loading slow: \d s of at most 8 s", said[-1])
    assert processes_of(repository) == []


def test_a_repository_that_does_not_exist_is_an_error(environment: Environment, tmp_path: Path, log: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"nowhere: .*does not exist"),
        running(environment, tmp_path / "nowhere", log=log),
    ):
        pass


def test_models_are_named_in_explicit_mode_only(environment: Environment, repository: Path, log: Path) -> None:
    with (
        pytest.raises(ValueError, match="models are named in mode 'explicit' only, not in 'poll'"),
        running(environment, repository, log=log, mode="poll", models=["doubled"]),
    ):
        pass
