"""A repository whose model `doubled` has versions 1, 2 and 3, of which 2 is promoted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelwright.repository import moves
from modelwright.repository.move import carry_out
from tests.conftest import Sandbox, doubling_onnx
from tests.fleet.fake import FakeTriton, serving

FACTORS = {1: 2.0, 2: 2.001, 3: 2.002}


@pytest.fixture(scope="session")
def promoted(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    sandbox = sandbox_factory()
    folder = sandbox.onnx_builder()
    for version, factor in FACTORS.items():
        doubling_onnx(folder / "model.onnx", factor)
        assert sandbox.build()["doubled"].version == version
    carry_out(sandbox.repository, moves.promote(sandbox.repository, "doubled", 2))
    return sandbox


@pytest.fixture
def sandbox(promoted: Sandbox, tmp_path: Path) -> Sandbox:
    """A copy of its own."""
    shutil.copytree(promoted.root, tmp_path / "project", symlinks=True)
    return Sandbox(tmp_path / "project")


@pytest.fixture
def start(sandbox: Sandbox) -> Iterator[Callable[..., FakeTriton]]:
    """Start a server of this repository with these faults; all models of it are loaded."""
    with ExitStack() as stack:

        def started(**faults: object) -> FakeTriton:
            return stack.enter_context(serving(FakeTriton(sandbox.project.repository, **faults), "doubled"))  # type: ignore[arg-type]

        yield started
