"""requirements.lock: written and read back, and refused when it is damaged or was made for something else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelwright.project.lockfile import Lock, LockNeededError, Wanted, Wheel, parse_lock, read_lock

WANTED = Wanted(("jinja2[i18n]>=3,<4; python_version > '3'",), ("babel",), "3.12", "1.26.4")
WHEELS = (
    Wheel("jinja2", "3.1.6", "8" * 64, "jinja2-3.1.6-py3-none-any.whl"),
    Wheel(
        "markupsafe", "3.0.4", "a" * 64, "markupsafe-3.0.4-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    ),
)
LOCK = Lock(WANTED, WHEELS)
SHOWN = "builders/m/requirements.lock"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m/requirements.lock"
    path.parent.mkdir()
    path.write_text(LOCK.text)
    return path


def test_what_is_written_is_read_back() -> None:
    assert parse_lock(LOCK.text, SHOWN) == LOCK


def test_it_is_a_requirements_file_as_pip_reads_it() -> None:
    lines = [line for line in LOCK.text.splitlines() if not line.startswith("#")]
    assert lines[0] == f"jinja2==3.1.6 --hash=sha256:{'8' * 64} # jinja2-3.1.6-py3-none-any.whl"


def test_a_lock_that_fits(file: Path) -> None:
    assert read_lock(file, SHOWN, WANTED) == LOCK


@pytest.mark.parametrize(
    ("wanted", "difference"),
    [
        (replace(WANTED, python="3.10"), "Python 3.12, the target has 3.10"),
        (replace(WANTED, numpy="2.0.0"), "numpy 1.26.4, the target has 2.0.0"),
        (replace(WANTED, requirements=("six",)), "model.yaml has [six]"),
        (replace(WANTED, exclude=()), "exclude_dependencies [babel], model.yaml has []"),
    ],
    ids=["python", "numpy", "requirements", "exclude"],
)
def test_a_lock_for_something_else(file: Path, wanted: Wanted, difference: str) -> None:
    with pytest.raises(LockNeededError) as caught:
        read_lock(file, SHOWN, wanted)
    assert caught.value.message.startswith(f"{SHOWN}: made for something else: ")
    assert difference in caught.value.message
    assert caught.value.hint == "modelwright lock m writes it; then commit it"


def test_a_lock_that_is_missing(file: Path) -> None:
    file.unlink()
    with pytest.raises(LockNeededError, match=r"requirements\.lock: missing(?s:.*)modelwright lock m"):
        read_lock(file, SHOWN, WANTED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("# python: 3.12\n", ""), "lock:1: its head does not say"),
        (("jinja2==", "<<<<<<< HEAD\njinja2=="), "lock:7: this is no line of such a file"),
        (("jinja2==3.1.6 --hash", "jinja2>=3.1.6 --hash"), "lock:7: this is no line"),
        (("markupsafe==", "jinja2=="), "lock:8: jinja2 is there twice"),
        (("==3.1.6 --", "==3.1.5 --"), r"lock:7: jinja2==3\.1\.5 is not what jinja2-3\.1\.6-py3-none-any\.whl holds"),
    ],
    ids=["head", "merge conflict", "no pin", "twice", "another version"],
)
def test_a_lock_that_was_edited(file: Path, change: tuple[str, str], reason: str) -> None:
    file.write_text(LOCK.text.replace(*change))
    with pytest.raises(LockNeededError, match=reason):
        read_lock(file, SHOWN, WANTED)


def test_a_lock_that_cannot_be_read(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(LockNeededError, match="cannot be read"):
        read_lock(file, SHOWN, WANTED)
