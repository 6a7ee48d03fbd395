"""One flipped bit anywhere is found, and what can be restored is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from modelwright.digest import list_tree
from modelwright.operations.fsck import Checkup, fsck
from modelwright.repository.move import carry_out
from modelwright.repository.moves import retire
from tests.conftest import ONNX_YAML, Sandbox, new_sandbox


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A model with three versions, of which one is retired, and labels beside them."""
    sandbox = new_sandbox(tmp_path_factory.mktemp("built") / "project")
    for factor in (2.0, 2.001, 2.002):
        sandbox.onnx_builder("doubled", ONNX_YAML, factor)
        assert sandbox.build()["doubled"].error is None
    carry_out(sandbox.repository, retire(sandbox.repository, "doubled", 1))
    return sandbox


@pytest.fixture
def copy(built: Sandbox, tmp_path: Path) -> Sandbox:
    shutil.copytree(built.root, tmp_path / "project", symlinks=True)
    return Sandbox(tmp_path / "project")


def run(sandbox: Sandbox, *, repair: bool = False) -> Checkup:
    return fsck(sandbox.project, repair=repair, say=lambda text: None)


def files(sandbox: Sandbox) -> dict[str, Path]:
    """Every file of the repository and its history."""
    found: dict[str, Path] = {}
    for folder in (sandbox.project.repository, sandbox.project.history):
        found |= {f"{folder.name}/{name}": path for name, path in list_tree(folder).items()}
    return found


def test_a_repository_as_it_was_published_is_clean(copy: Sandbox) -> None:
    found = run(copy)
    assert found.damages == ()
    assert found.versions == 3


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)


def test_a_flipped_bit_in_any_file_is_found(copy: Sandbox) -> None:
    for name, path in files(copy).items():
        whole = path.read_bytes()
        for place in (0, len(whole) * 4, len(whole) * 8 - 1):
            flip(path, place)
            found = run(copy)
            assert path in {damage.place for damage in found.damages}, f"{name}, bit {place}: {found.damages}"
            path.write_bytes(whole)
    assert run(copy).damages == ()
