"""Environments of their own: installed once, reused, and refused with a reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from modelwright.environments.interpreters import Interpreter
from modelwright.environments.own import WantedEnvironment, ensure, find
from modelwright.environments.packages import NoWheelError
from modelwright.errors import StepError

WANTED = WantedEnvironment(
    name="toy",
    title="Toy",
    pins=("toy==1.0",),
    minors=range(sys.version_info.minor, sys.version_info.minor + 1),
    size="a download of 1 MB",
    trial="import toy",
    unneeded=("toy/include",),
)


class Installer:
    """Writes one module where pip would install, and counts."""

    def __init__(self, code: str = "") -> None:
        self.code = code
        self.count = 0

    def __call__(self, _: Interpreter, pins: Sequence[str], target: Path, log: Path, whose: str) -> None:
        self.count += 1
        (target / "toy/include").mkdir(parents=True)
        (target / "toy/__init__.py").write_text(self.code)


def test_it_is_installed_once_with_its_size_said_before(tmp_path: Path) -> None:
    said: list[str] = []
    install = Installer()
    assert find(tmp_path, WANTED) is None
    with ThreadPoolExecutor(2) as pool:
        made = [*pool.map(lambda _: ensure(tmp_path, WANTED, said.append, install=install), range(2))]
    assert made[0] == made[1] == find(tmp_path, WANTED)
    assert install.count == 1
    assert any(text.startswith("installing Toy for Python") and "a download of 1 MB" in text for text in said)
    assert not list(tmp_path.glob("**/include"))


def test_its_python_finds_its_packages_and_no_others(tmp_path: Path) -> None:
    made = ensure(tmp_path, WANTED, print, install=Installer("x = 7"))
    run = [str(made.python), "-c", "import toy; print(toy.x); import pydantic"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env={})
    assert done.stdout == "7\n"
    assert "No module named 'pydantic'" in done.stderr


def test_other_pins_are_another_environment(tmp_path: Path) -> None:
    ensure(tmp_path, WANTED, print, install=Installer())
    other = replace(WANTED, pins=("toy==2.0",))
    assert find(tmp_path, other) is None
    assert other.identity != WANTED.identity


def test_what_a_killed_installation_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".staging-killed").mkdir()
    ensure(tmp_path, WANTED, print, install=Installer())
    assert not (tmp_path / ".staging-killed").exists()


def test_one_whose_packages_do_not_import_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="Toy does not run on this machine: OSError: no AVX here"):
        ensure(tmp_path, WANTED, print, install=Installer("raise OSError('no AVX here')"))
    assert find(tmp_path, WANTED) is None


def test_an_index_without_a_wheel_is_named(tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise NoWheelError("pip cannot install Toy's packages", "point pip's index-url at one that has it")

    with pytest.raises(StepError, match=r"(?s)pip cannot install Toy's packages.*index-url"):
        ensure(tmp_path, WANTED, print, install=refuse)


def test_a_machine_without_a_python_that_fits_is_told(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"Toy needs Python 3\.98 to 3\.99, and none of them is on this machine"):
        ensure(tmp_path, replace(WANTED, minors=range(98, 100)), print, install=Installer())


def test_planning_starts_no_process_and_imports_nothing() -> None:
    code = (
        "import subprocess, sys, json; subprocess.Popen = None;"
        "from modelwright.environments.tensorflow import TENSORFLOW;"
        "print(json.dumps([TENSORFLOW.identity['python'], sorted({'numpy', 'tensorflow'} & {*sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    python, imported = json.loads(done.stdout)
    assert python.startswith("3.")
    assert imported == []
