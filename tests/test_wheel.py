"""The wheel alone, in an environment with nothing else: install, init, build, serve, infer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, default_sigint
from tests.ports import free_ports
from tests.server.models import shared_environment
from tests.waiting import PATIENCE_S

UV = str(Path(sys.executable).parent / "uv")


def variables(environment: Path) -> dict[str, str]:
    """Of a shell where only this environment and the system are on PATH."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return kept | {"PATH": f"{environment / 'bin'}:/usr/bin:/bin"}


def run(environment: Path, folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=variables(environment), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(folder, folder, UV, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_what_init_writes(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    starter = {path.name for path in (ROOT / "modelwright/starter").iterdir()}
    assert {f"modelwright/starter/{name}" for name in (*starter, "locustfile.py")} <= names
    assert {"modelwright/templates/config.pbtxt.j2", "modelwright/schemas/model.schema.json"} <= names


@pytest.mark.server
def test_who_installs_the_wheel_has_a_served_model_in_four_commands(wheel: Path, tmp_path: Path) -> None:
    env, project = tmp_path / "env", tmp_path / "models"
    run(env, tmp_path, UV, "venv", "--quiet", "--python", sys.executable, "env")
    pins = ("--constraint", str(ROOT / "constraints.txt"))
    run(env, tmp_path, UV, "pip", "install", "--quiet", "--python", "env/bin/python", *pins, str(wheel))
    assert "Next:\n  cd models\n  modelwright build  " in run(env, tmp_path, "modelwright", "init", "models")
    (project / ".modelwright").mkdir()
    (project / ".modelwright/server").symlink_to(shared_environment().root.parent)  # a download of 100 MB, made once
    assert "\n  modelwright infer edges  " in run(env, project, "modelwright", "build")
    http, grpc, metrics = map(str, free_ports(3))
    ports = ("--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics)
    serve = subprocess.Popen(
        ["modelwright", "serve", *ports],
        cwd=project,
        env=variables(env),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=default_sigint,
    )
    try:
        assert serve.stdout is not None
        lines = list(iter_until(serve.stdout, "Ctrl-C stops it"))
        assert "  edges version 1\n" in lines
        answer = run(env, project, "modelwright", "infer", "edges", "--url", f"http://127.0.0.1:{http}")
        assert answer.startswith("edges edges: float32 [1, 1, 24, 24] [")
        serve.send_signal(signal.SIGINT)
        assert serve.wait(PATIENCE_S) == 0
        serve.stdout.close()
    finally:
        serve.kill()  # a test that fails leaves no server behind


def iter_until(lines: Iterable[str], last: str) -> Iterator[str]:
    for line in lines:
        yield line
        if last in line:
            return
