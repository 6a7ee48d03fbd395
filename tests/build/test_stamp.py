"""The stamp of a build that had nothing to do: it holds while nothing changes, and for nothing else."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.api import Project
from modelwright.build import stamp
from tests.conftest import Sandbox

LATER_NS = 60_000_000_000


@pytest.fixture
def stamped(sandbox: Sandbox, tmp_path: Path) -> tuple[Sandbox, Path]:
    """A built project whose stamp was written as if everything had been still for a minute; a file that it looked at."""
    sandbox.onnx_builder()
    sandbox.build()
    package = tmp_path / "packages" / "weights"
    package.mkdir(parents=True)
    (package / "model.bin").write_bytes(b"weights")
    artifacts = sorted(sandbox.project.store.glob("*/*/artifact.json"))
    assert artifacts
    looked_at = [package / "model.bin", *artifacts, sandbox.root / "builders/doubled/model.yaml"]
    stamp.write(sandbox.project, (), 1, looked_at, time.time_ns() + LATER_NS)
    return sandbox, package


def held(sandbox: Sandbox) -> bool:
    return stamp.read(sandbox.project) is not None


def rewritten_in_place(path: Path) -> None:
    """Another byte, the same size, and the timestamps that the file had."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "a builder's code": lambda root, _: rewritten_in_place(root / "builders/doubled/data.py"),
    "a new file of a builder": lambda root, _: (root / "builders/doubled/more.py").touch(),
    "a new builder": lambda root, _: (root / "builders/another").mkdir(),
    "a file less": lambda root, _: (root / "builders/doubled/data.py").unlink(),
    "a template": lambda root, _: rewritten_in_place(root / "templates/macros.j2"),
    "modelwright.toml": lambda root, _: (root / "modelwright.toml").write_text(
        f"{(root / 'modelwright.toml').read_text()}# a comment\n"
    ),
    "a published config": lambda root, _: rewritten_in_place(root / "model_repository/doubled/config.pbtxt"),
    "a published file": lambda root, _: rewritten_in_place(root / "model_repository/doubled/1/model.onnx"),
    "a version less": lambda root, _: shutil.rmtree(root / "model_repository/doubled/1"),
    "no ledger": lambda root, _: (root / "model_repository/modelwright.json").unlink(),
    "no repository": lambda root, _: shutil.rmtree(root / "model_repository"),
    "an artifact less": lambda root, _: shutil.rmtree(next((root / ".modelwright/store").glob("[0-9a-f]*/*"))),
    "a file of a package": lambda _, package: rewritten_in_place(package / "model.bin"),
    "a new file of a package": lambda _, package: (package / "config.json").touch(),
    "a damaged stamp": lambda root, _: (root / ".modelwright/cache/nothing-to-do.json").write_text('{"key": '),
    "a stamp that is a list": lambda root, _: (root / ".modelwright/cache/nothing-to-do.json").write_text("[]"),
    "no stamp": lambda root, _: (root / ".modelwright/cache/nothing-to-do.json").unlink(),
}


def test_it_holds_while_nothing_changes(stamped: tuple[Sandbox, Path]) -> None:
    sandbox, _ = stamped
    assert stamp.read(sandbox.project) == stamp.Stamp(models=1, replayed=False)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_any_change_ends_it(stamped: tuple[Sandbox, Path], change: Callable[[Path, Path], object]) -> None:
    sandbox, package = stamped
    change(sandbox.root, package)
    assert not held(sandbox)


def test_bytecode_is_no_change(stamped: tuple[Sandbox, Path]) -> None:
    sandbox, _ = stamped
    folder = sandbox.root / "builders/doubled"
    before = folder.stat()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/data.pyc").touch()
    assert before.st_mtime_ns != folder.stat().st_mtime_ns
    assert not held(sandbox)  # the folder itself changed, once
    stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
    (folder / "__pycache__/data.pyc").write_bytes(b"newer")
    assert held(sandbox)


def test_it_is_of_these_models_and_of_these_packages(
    stamped: tuple[Sandbox, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, _ = stamped
    assert stamp.read(sandbox.project, ["doubled"]) is None
    monkeypatch.syspath_prepend(tmp_path)
    assert not held(sandbox)


def test_an_installation_ends_it(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    sandbox.onnx_builder()
    stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
    assert held(sandbox)
    (site / "torch-99.dist-info").mkdir()
    assert not held(sandbox)


def test_a_module_among_packages_counts_and_its_neighbours_do_not(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site-packages"
    (site / "other").mkdir(parents=True)
    (site / "toy_kind.py").write_text("KIND = 1")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    sandbox.onnx_builder()
    stamp.write(sandbox.project, (), 1, [site / "toy_kind.py"], time.time_ns() + LATER_NS)
    (site / "other" / "file").touch()
    assert held(sandbox)
    rewritten_in_place(site / "toy_kind.py")
    assert not held(sandbox)


@pytest.mark.parametrize(
    "name", ["lib.egg-info/PKG-INFO", "lib-1.dist-info/METADATA", "lib-1.dist-info/entry_points.txt"]
)
def test_metadata_that_is_rewritten_in_place_ends_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / "site-packages" / name
    file.parent.mkdir(parents=True)
    file.write_text("Version: 1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site-packages")])
    sandbox.onnx_builder()
    stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
    assert held(sandbox)
    rewritten_in_place(file)
    assert not held(sandbox)


def test_what_changed_a_moment_ago_is_not_stamped(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    stamp.write(sandbox.project, (), 1, [], time.time_ns())
    assert not held(sandbox)


def test_a_link_to_a_folder_is_not_stamped(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = sandbox.onnx_builder()
    (tmp_path / "elsewhere").mkdir()
    (folder / "data").symlink_to(tmp_path / "elsewhere")
    stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
    assert not held(sandbox)


def test_the_target_of_a_linked_file_counts(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = sandbox.onnx_builder()
    (tmp_path / "weights").write_text("1")
    (folder / "weights").symlink_to(tmp_path / "weights")
    stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
    assert held(sandbox)
    (tmp_path / "weights").write_text("2")
    assert not held(sandbox)


def test_a_replay_is_noted(stamped: tuple[Sandbox, Path]) -> None:
    sandbox, _ = stamped
    project = Project(sandbox.project)
    assert project.nothing_to_do() == 1
    assert project.nothing_to_do(replayed=True) is None
    stamp.mark_replayed(sandbox.project)
    assert project.nothing_to_do(replayed=True) == 1


def test_a_build_that_looks_closely_keeps_what_is_known_of_a_replay(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    for _ in range(2):
        stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
        assert stamp.read(sandbox.project) is not None
        stamp.mark_replayed(sandbox.project)
    stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
    assert stamp.read(sandbox.project) == stamp.Stamp(models=1, replayed=True)
    (sandbox.root / "builders/doubled/more.py").touch()
    stamp.write(sandbox.project, (), 1, [], time.time_ns() + LATER_NS)
    assert stamp.read(sandbox.project) == stamp.Stamp(models=1, replayed=False)


def test_the_second_build_of_nothing_reads_no_model_yaml(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    assert sandbox.cli("build").exit_code == 0
    file = sandbox.project.state / "cache" / "nothing-to-do.json"
    slow = sandbox.cli("build")
    while not file.exists():  # two seconds after the last change, plus a slow disk
        time.sleep(0.2)
        slow = sandbox.cli("build")
    fast = sandbox.cli("build")
    assert json.loads(file.read_text())["models"] == 1
    assert fast.output == slow.output
    assert "Nothing to do: 1 model up to date in model_repository." in fast.output
    (sandbox.root / "builders/doubled/model.yaml").write_text("source: {")
    assert "model.yaml:2:1: not valid YAML" in sandbox.cli("build").output
