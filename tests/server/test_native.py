"""A tritonserver that is there already: the downloaded one, laid out as in the stock container and put on PATH."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from modelwright.errors import ServerError
from modelwright.server import BACKENDS
from modelwright.server.native import backends_here, find_native, may_be_lacking
from modelwright.server.session import Load, serve
from tests.conftest import Sandbox
from tests.server.models import RELEASE, config, double, publish, shared_environment

pytestmark = pytest.mark.server


@pytest.fixture
def stock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """bin/tritonserver, backends/ and TRITON_VERSION, as in /opt/tritonserver."""
    made = shared_environment()
    folder = tmp_path / "opt/tritonserver"
    (folder / "bin").mkdir(parents=True)
    variables = made.variables()
    given = " ".join(f"{name}={shlex.quote(variables[name])}" for name in ("LD_LIBRARY_PATH", "PATH"))
    program = folder / "bin/tritonserver"
    program.write_text(f'#!/bin/sh\nexec env {given} {shlex.quote(str(made.server))} "$@"\n')
    program.chmod(0o755)
    (folder / "backends").symlink_to(made.backends)
    (folder / "TRITON_VERSION").write_text("2.51.0\n")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_it_is_used_and_says_which_backends_it_has(stock: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(repository, "doubled", double(), config())
    publish(repository, "planned", double(), config().replace('"onnxruntime"', '"tensorrt"'))
    heard: list[str] = []
    empty = tmp_path / "no downloaded server"
    loads = [Load("doubled"), Load("planned")]
    with serve(empty, RELEASE, repository, log=tmp_path / "log", say=heard.append, load=loads) as served:
        assert served.ready() == [("doubled", 1)]
        assert served.refused["planned"].startswith("this server has no tensorrt backend: it has onnxruntime, python (")
    assert not empty.exists()
    assert heard == ["the server here is Triton 2.51.0 (24.10), and the repository is for 26.07 (2.71.0)"]


def test_a_build_and_verify_run_on_it_and_doctor_names_it(
    stock: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelwright.server.environment.ensure", None)  # the downloaded one is not asked for
    sandbox.python_builder()  # verified in a trial
    assert sandbox.cli("build", "--replay").exit_code == 0
    verified = sandbox.cli("verify")
    assert (verified.exit_code, verified.output.count(" ok ")) == (0, 2)
    row = next(
        line
        for line in sandbox.cli("doctor").output.replace("\n", " ").split("ok ")
        if "TRITON" in line or "on PATH" in line
    )
    assert "backends:" in row


def test_verify_names_the_backend_that_it_lacks(
    stock: Path, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    fewer = tmp_path / "backends"
    fewer.mkdir()
    (fewer / "python").symlink_to(stock / "backends/python")
    monkeypatch.setenv("MODELWRIGHT_BACKEND_DIRECTORY", str(fewer))
    verified = sandbox.cli("verify", "--json")
    assert verified.exit_code == 1
    assert "this server has no onnxruntime backend: it has python" in verified.stdout


def test_what_is_named_and_not_there_is_an_error(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWRIGHT_BACKEND_DIRECTORY", str(tmp_path / "gone"))
    with pytest.raises(ServerError, match=r"its backends are not in .*gone\n  hint: --backend-directory"):
        find_native(RELEASE)
    monkeypatch.setenv("MODELWRIGHT_TRITONSERVER", str(tmp_path / "gone"))
    with pytest.raises(ServerError, match=r"--tritonserver .*gone: is no program"):
        find_native(RELEASE)


def test_what_is_served_here_follows_the_server_that_is_there(
    stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in ("python", "tensorrt"):
        (tmp_path / "own" / backend).mkdir(parents=True)
    monkeypatch.setenv("MODELWRIGHT_BACKEND_DIRECTORY", str(tmp_path / "own"))
    monkeypatch.setattr("modelwright.server.native.visible_gpus", tuple)
    assert backends_here() == {"python", "tensorrt"}
    assert not may_be_lacking("dali", on_gpus=False)  # this server is to serve it
    assert may_be_lacking("tensorrt", on_gpus=True)  # there is no GPU
    monkeypatch.setattr("modelwright.server.native.visible_gpus", lambda: ("a GPU",))
    assert not may_be_lacking("tensorrt", on_gpus=True)
    monkeypatch.delenv("MODELWRIGHT_BACKEND_DIRECTORY")
    monkeypatch.setenv("PATH", "/nowhere")
    assert backends_here() == BACKENDS
    assert may_be_lacking("tensorrt", on_gpus=False)
    assert may_be_lacking("", on_gpus=True)
    assert not may_be_lacking("python", on_gpus=False)
