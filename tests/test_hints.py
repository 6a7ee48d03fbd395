"""Commands in messages are as they must be typed: by the program's path, with --project, into the right environment."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from modelwright.cli import hints
from tests.conftest import Sandbox


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of this name in an environment of its own, which was started by its path."""
    program = tmp_path / "env/bin/modelwright"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return program


def test_a_program_that_the_shell_finds_goes_by_its_name(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{installed.parent}:/usr/bin")
    assert hints.typed("build first: modelwright build") == "build first: modelwright build"


def test_one_that_it_does_not_find_goes_by_its_path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(installed.parent.parent.parent)
    assert hints.typed("modelwright build, then modelwright serve") == (
        "env/bin/modelwright build, then env/bin/modelwright serve"
    )
    monkeypatch.chdir("/")
    assert hints.typed("modelwright build") == f"{installed.relative_to('/')} build"


def test_another_program_of_that_name_is_not_it(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(installed, other / "modelwright")
    monkeypatch.setenv("PATH", f"{other}:/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert hints.typed("modelwright status") == "env/bin/modelwright status"


def test_a_link_to_it_is_it(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/modelwright").symlink_to(installed)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin")
    assert hints.typed("modelwright status") == "modelwright status"


@pytest.mark.parametrize(
    "text", ["a bug in modelwright", ".venv/bin/modelwright build", "in modelwright.toml", "modelwright[torch]"]
)
def test_what_is_no_command_stays(installed: Path, text: str) -> None:
    assert hints.typed(text) == text


def test_packages_go_into_the_programs_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("python", "pip"):
        (tmp_path / "bin" / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin")
    assert hints.typed("pip install torch") == "pip install torch"
    monkeypatch.setenv("PATH", "/usr/bin")
    assert hints.typed("pip install torch") == "bin/python -m pip install torch"
    monkeypatch.setattr(hints, "find_spec", lambda _: None)
    assert hints.typed("pip install torch") == "uv pip install --python bin/python torch"


def test_from_elsewhere_commands_name_the_project(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder()
    project = f"--project {sandbox.root}"
    assert f"hint: build first: modelwright {project} build" in sandbox.cli("verify", folder=tmp_path).output
    built = sandbox.cli("build", folder=tmp_path).output
    for command in ("serve", "infer doubled", "status"):
        assert f"  modelwright {project} {command}  " in built
    assert f"Serve them: modelwright {project} serve" in sandbox.cli("build", folder=tmp_path).output
    new = sandbox.cli("new", "edges", "--kind", "onnx", folder=tmp_path).output
    assert f"  modelwright {project} build edges  " in new
    assert "  edit project/builders/edges/model.yaml  " in new
    inside = sandbox.root / "builders"
    assert "Serve them: modelwright serve" in sandbox.cli("build", "doubled", folder=inside).output
    assert (
        f"hint: start a project there: modelwright init {tmp_path / 'x'}"
        in Sandbox(tmp_path / "x").cli("build", folder=tmp_path).output
    )
