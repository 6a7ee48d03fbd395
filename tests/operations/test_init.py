"""`modelwright init`: a project that works as it stands, and nothing that was there is touched."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from modelwright.cli.main import main
from modelwright.errors import ProjectError, SpecError
from modelwright.operations import init
from modelwright.operations.init import Started, init_project
from modelwright.project.project import load
from modelwright.triton.releases import TESTED_WITH
from tests.conftest import ROOT, Sandbox
from tests.operations.test_scaffold import snapshot

WRITTEN = (
    ".github/workflows/models.yml", ".gitignore", "Makefile", "README.md", "builders/edges/data.py",
    "builders/edges/model.onnx", "builders/edges/model.yaml", "docker-compose.yml", "loadtest/locustfile.py",
    "modelwright.toml", "requirements.txt", "schemas/model.schema.json", "templates/config.pbtxt.j2", "templates/macros.j2",
)  # fmt: skip


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Started:
    return init_project(tmp_path_factory.mktemp("new") / "deep/down")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


# --- what is written --------------------------------------------------------------------------------------------------


def test_it_writes_a_whole_project(started: Started) -> None:
    assert started.written == WRITTEN
    assert sorted(snapshot(started.root)) == sorted(WRITTEN)
    texts = [path.read_text() for path in started.root.rglob("*") if path.is_file() and path.suffix != ".onnx"]
    assert not [text for text in texts if re.search(r"@[A-Z]+@", text)]


def test_it_builds_and_lints_clean(started: Started) -> None:
    sandbox = Sandbox(started.root)
    result = sandbox.cli("build")
    assert result.exit_code == 0, result.output
    assert sandbox.published().keys() >= {"edges/1/model.onnx", "edges/config.pbtxt"}
    assert sandbox.cli("lint", "--strict").exit_code == 0


def test_it_is_for_the_release_that_this_version_is_tested_with(started: Started, tmp_path: Path) -> None:
    assert TESTED_WITH == load(ROOT).target.name == load(started.root).target.name
    other = init_project(tmp_path, target="26.04")
    assert load(other.root).target.name == "26.04"
    compose = (other.root / "docker-compose.yml").read_text()
    assert "TRITON_RELEASE:-26.04}" in compose
    assert "PLAN_BUILDER_IMAGE:-nvcr.io/nvidia/tensorrt:26.04-py3}" in compose


def test_its_services_are_those_of_modelwright_itself(started: Started) -> None:
    own = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    new = yaml.safe_load((started.root / "docker-compose.yml").read_text())
    assert new["x-triton"] == own["x-triton"]
    assert new["services"] == {name: own["services"][name] for name in ("triton", "triton-gpu", "plan-builder")}


def test_its_templates_and_locustfile_are_those_of_modelwright_itself(started: Started) -> None:
    for name in ("templates/config.pbtxt.j2", "templates/macros.j2", "loadtest/locustfile.py"):
        assert (started.root / name).read_bytes() == (ROOT / name).read_bytes()


def test_every_command_that_it_names_exists(started: Started) -> None:
    known = set(main.list_commands(None))  # type: ignore[arg-type]
    for name in ("README.md", "Makefile", ".github/workflows/models.yml"):
        text = (started.root / name).read_text().replace("$(MODELWRIGHT)", "modelwright")
        named = set(re.findall(r"(?:^|[`\t ])modelwright ([a-z][a-z-]*)", text, re.MULTILINE))
        assert named
        assert named <= known


def test_its_workflow_builds_lints_verifies_and_gates(started: Started) -> None:
    workflow = yaml.safe_load((started.root / ".github/workflows/models.yml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["models"]["steps"] if "run" in step]
    assert [step.split(" || ")[0] for step in steps] == [
        "pip install --requirement requirements.txt",
        "modelwright build",
        "modelwright lint --format github",
        "modelwright verify",
        "modelwright load ab",
    ]


@pytest.mark.parametrize("there", [True, False], ids=["on PATH", "not installed"])
def test_its_makefile_uses_the_program_that_is_there_or_makes_an_environment(
    started: Started, tmp_path: Path, there: bool
) -> None:
    if there:
        (tmp_path / "modelwright").touch(mode=0o755)
    command = ["make", "-n", "repo", f"PATH={tmp_path}:/usr/bin:/bin"]
    done = subprocess.run(
        command, cwd=started.root, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == ("" if there else ".venv/bin/") + "modelwright build --replay"
    assert any("-m venv" in line for line in lines) is not there


# --- what is there stays ----------------------------------------------------------------------------------------------


def test_files_in_the_way_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "templates").write_text("a file where a folder would be")
    (tmp_path / "Makefile").symlink_to("nowhere")
    before = snapshot(tmp_path)
    result = run(str(tmp_path))
    assert result.exit_code == 1
    assert result.output == (
        f"Error: {tmp_path}: there are Makefile, README.md, templates/config.pbtxt.j2, templates/macros.j2 already\n"
        "  hint: nothing was written; choose another folder, or keep those as they are: "
        f"modelwright init --keep {tmp_path}\n"
    )
    assert snapshot(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "templates", "Makefile"}


def test_keep_writes_the_others(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".git").mkdir()
    result = run(str(tmp_path), "--keep")
    assert result.exit_code == 0, result.output
    assert "Kept README.md as it was" in result.output
    assert (tmp_path / "README.md").read_text() == "mine"
    assert {*snapshot(tmp_path)} == {*WRITTEN}


@pytest.mark.parametrize("options", [(), ("--keep",)])
def test_a_project_is_not_started_twice(started: Started, options: tuple[str, ...]) -> None:
    before = snapshot(started.root)
    result = run(str(started.root), *options)
    assert result.exit_code == 1
    assert f"Error: {started.root} is a project already\n  hint: start a builder in it: " in result.output
    assert snapshot(started.root) == before


def test_the_hint_of_keep_works_from_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    (folder / "Makefile").write_text("mine")
    result = run(str(folder), "--target", "26.04")
    command = shlex.split(result.output.partition("as they are: modelwright init ")[2])
    assert run(*command).exit_code == 0
    assert load(folder).target.name == "26.04"
    assert (folder / "Makefile").read_text() == "mine"


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")], ids=["file", "link"])
def test_what_is_no_folder_cannot_be_kept(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "builders")
    assert run(str(tmp_path)).exit_code == 1
    result = run(str(tmp_path), "--keep")
    assert result.output.startswith(f"Error: {tmp_path}: builders: a file or a link where a folder is needed\n")
    assert [path.name for path in tmp_path.iterdir()] == ["builders"]


@pytest.mark.parametrize("place", ["file/models", "/proc/models", "/proc/a/b"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    result = run(str(tmp_path / place))
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {tmp_path / place}: cannot be made: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProjectError, match=r"file is not a folder\n  hint: name another one: modelwright init DIR"):
        init_project(tmp_path / "file")


def test_an_unknown_release_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"unknown Triton release '26\.7'"):
        init_project(tmp_path / "new", target="26.7")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise SpecError("it does not work")

    monkeypatch.setattr(init, "new_builder", broken)
    with pytest.raises(SpecError):
        init_project(tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []


def test_a_move_that_fails_takes_back_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def broken(path: Path, target: Path) -> Path:
        if path.name == "requirements.txt":
            raise OSError(28, "No space left on device")
        return real(path, target)

    (tmp_path / "builders").mkdir()
    monkeypatch.setattr(Path, "rename", broken)
    result = run(str(tmp_path))
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["builders"]
    assert list((tmp_path / "builders").iterdir()) == []


# --- what it says -----------------------------------------------------------------------------------------------------


def test_it_says_what_was_written_and_what_to_type_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"  {name}\n" for name in WRITTEN)
    assert run("my models").output == (
        f"Wrote my models/\n{lines}\n"
        "Next:\n"
        "  cd 'my models'\n"
        "  modelwright build                  build the example, verify it, publish version 1\n"
        "  modelwright infer edges            send it a sample, on a real server\n"
        "  modelwright serve                  keep a server up (HTTP 8000, gRPC 8001, metrics 8002)\n"
        "  modelwright new NAME --kind torch  a builder of your own, of any kind\n"
    )
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    here = run().output
    assert here.startswith("Wrote\n  .github/workflows/models.yml\n")
    assert "  cd " not in here


def test_where_there_is_no_project_every_command_names_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["build"], ["plan"], ["status"], ["serve"], ["verify"], ["infer", "m"], ["new", "m"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1
        assert result.output == (
            f"Error: no modelwright.toml in {tmp_path} or above it\n"
            "  hint: start a project there: modelwright init; or name an existing one: --project DIR\n"
        )
