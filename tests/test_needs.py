"""The marks hold: what a test has no mark for is refused, in the processes that it starts, too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fence.sitecustomize import MARK_OF
from tests.needs import allowed, pytest_collection_modifyitems, require
from tests.server.models import shared_environment


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_every_framework_is_refused_by_the_name_of_its_mark() -> None:
    code = f"for name in {sorted(MARK_OF)}:\n    try: __import__(name)\n    except ImportError as error: print(error)"
    done = run_python(code)
    expected = [f"this test needs pytest.mark.{MARK_OF[name]}: it imports {name}" for name in sorted(MARK_OF)]
    assert done.stdout.splitlines() == expected, done.stderr


def test_whether_a_framework_is_installed_can_be_asked() -> None:
    done = run_python("from importlib.util import find_spec; assert find_spec('torch')")
    assert done.returncode == 0, done.stderr


@pytest.mark.torch
def test_with_the_mark_it_is_not_refused() -> None:
    assert allowed("torch")
    assert run_python("import sklearn").returncode == 0


def test_the_server_is_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"needs pytest\.mark\.server"):
        shared_environment()


def test_a_browser_is_refused() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"needs pytest\.mark\.browser"):
        require("browser")


class Collected:
    """As much of a test as the marks need."""

    def __init__(self, *fixtures: str) -> None:
        self.fixturenames = fixtures
        self.marks: list[str] = []

    def add_marker(self, mark: str) -> None:
        self.marks.append(mark)


@pytest.mark.parametrize(("fixtures", "marks"), [(("tmp_path", "server", "browser"), ["browser", "server"]), ((), [])])
def test_a_fixture_brings_its_mark(fixtures: tuple[str, ...], marks: list[str]) -> None:
    item = Collected(*fixtures)
    pytest_collection_modifyitems([item])  # type: ignore[list-item]
    assert item.marks == marks


@pytest.fixture(scope="module")
def shared() -> str:
    return "made once"


def test_what_shares_a_fixture_is_kept_in_one_process(shared: str, request: pytest.FixtureRequest) -> None:
    """In an id after @, as pytest-xdist has it: versions of pytest and pytest-xdist that do not fit together lose it."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("the tests run in one process")
    assert request.node.nodeid.endswith("@tests/test_needs.py")


# Where `make test-NAME` looks for the tests with a mark.
FOLDERS = {
    "timing": "tests/loadtest",
    "mlflow": "tests/kinds tests/tracking",
    "models": "tests/models",
    "tensorrt": "tests/tensorrt",
    "tensorflow": "tests/tensorflow",
}


@pytest.mark.parametrize("mark", FOLDERS)
def test_make_looks_where_the_tests_with_the_mark_are(mark: str) -> None:
    assert re.search(rf"^\t@\$\(PYTEST\) -m {mark} {FOLDERS[mark]}$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [path for path in (ROOT / "tests").rglob("test_*.py") if f"mark.{mark}" in path.read_text()]
    folders = [ROOT / folder for folder in FOLDERS[mark].split()]
    elsewhere = [path for path in named if not any(path.is_relative_to(folder) for folder in folders)]
    assert [path.name for path in elsewhere if path.name != Path(__file__).name] == []
    assert named
