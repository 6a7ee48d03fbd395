"""What a test needs beside Python and the repository, as marks: `torch`, `browser`, `server`, `timing`, `models`, `mlflow`.

`make test-quick` runs the tests that have none. So that they stay quick, a test without the mark `torch` cannot import
an ML framework, not even in a process that it starts, and one without `server` or `browser` cannot start those: it fails
and names the mark. A test that takes a fixture of `_MARKS` has the mark by itself. Where the local server cannot run,
tests that need it are skipped. `make test-models`, `make test-tensorrt` and `make test-mlflow` run those with the
marks `models`, `tensorrt` and `mlflow`: they install what these need.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import pytest

from modelwright.server.environment import unsupported_reason
from tests.fence.sitecustomize import FRAMEWORKS, MARKS

_MARKS = {
    "server": "server",
    "servers": "server",
    "completing_server": "server",
    "environment": "server",
    "browser": "browser",
}
_FENCE = str(Path(__file__).parent / "fence")
_IMPORT_TORCH = {
    "test_channels.py",
    "test_export.py",
    "test_exporters.py",
    "test_sparsity.py",
}  # modules that cannot be collected without it
_QUICK_TO_MAKE = {"sandbox_factory", "environment"}  # fixtures that may be made once a process


def allowed(mark: str) -> bool:
    """Whether the running test has a mark: also in the processes that it starts."""
    return mark in os.environ.get(MARKS, mark).split()


def require(mark: str) -> None:
    """Called before what a mark is for is started."""
    if not allowed(mark):
        pytest.fail(f"this test needs pytest.mark.{mark}")


def _without_torch(config: pytest.Config) -> bool:
    return "not torch" in str(config.getoption("markexpr"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where torch is not wanted, it is not imported for the sake of tests that do not run."""
    return True if _without_torch(config) and collection_path.name in _IMPORT_TORCH else None


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures: tuple[str, ...] = tuple(getattr(item, "fixturenames", ()))
        for mark in sorted({_MARKS[name] for name in fixtures if name in _MARKS}):
            item.add_marker(mark)
        group = _group(item)
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str:
    """Where the widest fixture of a test is defined: tests that share one run in the same process, which makes it once."""
    info = getattr(item, "_fixtureinfo", None)
    definitions = [found[-1] for found in info.name2fixturedefs.values()] if info else []
    places = {
        definition.baseid
        for definition in definitions
        if definition.scope != "function"
        and definition.baseid.startswith("tests/")
        and definition.argname not in _QUICK_TO_MAKE
    }
    return min(places, key=len, default="")


def pytest_collection_finish(session: pytest.Session) -> None:
    imported = sorted(FRAMEWORKS & sys.modules.keys())
    if imported and _without_torch(session.config):
        raise pytest.UsageError(f"a test module imports {', '.join(imported)}: import it inside its tests")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    os.environ["PYTHONPATH"] = _FENCE
    os.environ[MARKS] = " ".join(mark.name for mark in item.iter_markers())
    if allowed("server") and _no_server():
        pytest.skip(f"no local server: {_no_server()}")


@cache
def _no_server() -> str | None:
    return unsupported_reason()
