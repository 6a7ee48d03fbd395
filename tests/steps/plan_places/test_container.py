"""A plan from the container. No Docker engine runs here: places.py has a stand-in, which runs the service's command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from modelwright.errors import StepError
from modelwright.facts.plan import ANSWERS, PLAN, SIDECAR
from modelwright.project.plan_places import PlanPlaces
from modelwright.steps.plan_places.container import plan_from_container
from tests.conftest import ROOT
from tests.steps.plan_places.places import Request, new_request, put_on_path
from tests.waiting import wait_until


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that holds what docker was told."""
    put_on_path(monkeypatch, tmp_path / "bin", "docker")
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["plan-builder"]
    monkeypatch.setenv("FAKE_COMPOSE_COMMAND", json.dumps(service["command"]))
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path / "calls"))
    return tmp_path / "calls"


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return new_request(tmp_path / "request")


SETTINGS = PlanPlaces(compose_file=ROOT / "docker-compose.yml")


def test_the_plan_comes_back_with_what_belongs_to_it(tmp_path: Path, calls: Path, request_: Request) -> None:
    said: list[str] = []
    out = tmp_path / "out"
    plan_from_container(request_.folder, out, request_.request, SETTINGS, said.append)
    assert (out / PLAN).read_bytes() == b"ftrt" + b"graph" * 1000
    assert sorted(path.name for path in (out / ANSWERS).iterdir()) == ["00000.npz", "00001.npz", "00002.npz"]
    assert (out / SIDECAR).is_file()
    assert said == ["plan builder: started", "a line of TensorRT"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "calls", "out", "request"]


def test_the_service_runs_with_the_image_of_the_target_as_this_user_and_is_removed(
    tmp_path: Path, calls: Path, request_: Request
) -> None:
    plan_from_container(request_.folder, tmp_path / "out", request_.request, SETTINGS, lambda _: None)
    told = [json.loads(line) for line in calls.read_text().splitlines()]
    (run,) = (call for call in told if "run" in call)
    name = run[run.index("--name") + 1]
    assert run[-1] == "plan-builder"
    assert run[run.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert run[run.index("--file") + 1] == str(ROOT / "docker-compose.yml")
    assert ["rm", "--force", name] in told


@pytest.mark.parametrize(
    ("how", "message", "hint"),
    [
        ("dies", "the plan builder died half-way, exit code 9; its log ends:\n.*\n +half of a plan is there", "build again"),
        ("damages", "the plan builder's result: model.plan is damaged: its SHA-256", "build it again"),
        ("links", "the plan builder's result: model.plan is missing, or is not a file", "build it again"),
        ("answers another", "the plan builder's result: belongs to another request", "nothing of it was used"),
        ("hangs", "the plan builder did not end within 2 s; ", "raise tensorrt.timeout"),
    ],
)  # fmt: skip
def test_nothing_comes_back_from_a_builder_that_fails(
    tmp_path: Path, calls: Path, request_: Request, monkeypatch: pytest.MonkeyPatch, how: str, message: str, hint: str
) -> None:
    monkeypatch.setenv("FAKE_BUILDER", how)
    settings = PlanPlaces(compose_file=SETTINGS.compose_file, timeout_s=2 if how == "hangs" else 600)
    with pytest.raises(StepError, match=rf"(?s)container nvcr.io/nvidia/tensorrt:26.07-py3: {message}") as caught:
        plan_from_container(request_.folder, tmp_path / "out", request_.request, settings, lambda _: None)
    assert hint in caught.value.hint
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "calls", "request"]


def test_why_tensorrt_built_nothing_is_a_result(
    tmp_path: Path, calls: Path, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accept` of plan_folders.py makes the error of it."""
    monkeypatch.setenv("FAKE_BUILDER", "refuses")
    plan_from_container(request_.folder, tmp_path / "out", request_.request, SETTINGS, lambda _: None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["failed.json"]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "NVIDIA Container Toolkit"),
        ("manifest for nvcr.io/nvidia/tensorrt:26.07-py3 not found: manifest unknown", "tensorrt.image"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "start Docker"),
        ("no such service: plan-builder", "`modelwright init`"),
        ("sh: 0: cannot open /plan/request/start.sh: No such file", "Docker's engine must run on this machine"),
    ],
)
def test_what_docker_says_comes_with_what_to_do(
    tmp_path: Path, calls: Path, request_: Request, monkeypatch: pytest.MonkeyPatch, said: str, hint: str
) -> None:
    monkeypatch.setenv("FAKE_DOCKER_SAYS", said)
    with pytest.raises(StepError, match="exit code 125; its log ends:") as caught:
        plan_from_container(request_.folder, tmp_path / "out", request_.request, SETTINGS, lambda _: None)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_without_docker_the_message_says_so(tmp_path: Path, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(monkeypatch, tmp_path / "bin")
    with pytest.raises(StepError, match="neither docker compose nor docker-compose works here"):
        plan_from_container(request_.folder, tmp_path / "out", request_.request, SETTINGS, lambda _: None)


BUILD = """
import sys
from pathlib import Path
from modelwright.facts.plan import PlanRequest
from modelwright.project.plan_places import PlanPlaces
from modelwright.steps.plan_places.container import plan_from_container

folder = Path(sys.argv[1])
request = PlanRequest.model_validate_json((folder / "request.json").read_text())
plan_from_container(folder, folder.parent / "out", request, PlanPlaces(), lambda line: print(line, flush=True))
"""


def test_a_step_that_is_killed_leaves_no_container(
    tmp_path: Path, calls: Path, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C kills worker processes: with SIGKILL."""
    monkeypatch.setenv("FAKE_BUILDER", "hangs")
    with subprocess.Popen([sys.executable, "-c", BUILD, str(request_.folder)], stdout=subprocess.PIPE) as step:
        assert step.stdout is not None
        lines = iter(step.stdout.readline, b"")
        assert any(b"TensorRT" in line for line in lines)
        step.send_signal(signal.SIGKILL)
    wait_until(lambda: '["rm", "--force", "modelwright-plan-' in calls.read_text(), "the removal")
