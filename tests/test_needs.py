"""The marks hold: what a test has no mark for is refused, in the processes that it starts, too."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fence.sitecustomize import FRAMEWORKS
from tests.needs import allowed, require
from tests.server.models import shared_environment


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", sorted(FRAMEWORKS))
def test_a_framework_is_refused_by_the_name_of_its_mark(name: str) -> None:
    done = run_python(f"import {name}")
    assert done.returncode == 1
    assert f"ImportError: this test needs pytest.mark.torch: it imports {name}" in done.stderr


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


def run_pytest(root: Path, folder: Path, *arguments: str) -> str:
    """The output of pytest over tests of a folder, with this project's hooks and settings."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.needs", "-c", str(root / "pyproject.toml"), *arguments]
    command += ["--rootdir", str(folder), str(folder / "tests")]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root).stdout


def test_a_fixture_brings_its_mark(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text(
        "import pytest\n@pytest.fixture\ndef server(): ...\ndef test_one(server): ...\ndef test_two(): ...\n"
    )
    output = run_pytest(request.config.rootpath, tmp_path, "--collect-only", "-q", "-m", "server")
    assert "1/2 tests collected (1 deselected)" in output, output


def test_tests_that_share_a_fixture_run_in_one_process(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text(
        "import pytest\n@pytest.fixture(scope='module')\ndef shared(): ...\n"
        "@pytest.mark.parametrize('number', range(4))\ndef test_one(shared, number): ...\ndef test_two(): ...\n"
    )
    output = run_pytest(request.config.rootpath, tmp_path, "-n", "2", "--dist", "loadgroup", "-v")
    assert "5 passed" in output, output
    assert len(set(re.findall(r"\[gw(\d)\] .* PASSED .*test_one", output))) == 1, output
