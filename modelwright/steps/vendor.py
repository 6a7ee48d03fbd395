"""Packages of a Python-backend model, installed beside its model.py for the target's interpreter, not for this one."""

from __future__ import annotations

import re
import shutil
from email.parser import HeaderParser
from typing import TYPE_CHECKING

from modelwright.errors import StepError
from modelwright.steps.wheels import LOCK_AGAIN, fetched, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from packaging.requirements import Requirement

    from modelwright.project.lockfile import Lock

# Who installed it and what for, and the list of all files: not every wheel has the same of these.
_INSTALL_RECORDS = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
_EXTENSION = re.compile(r"\.(?P<interpreter>cpython-\d+\w*|pypy\d+)(-(?P<platform>[\w-]+))?\.so$")


def vendor(lock: Lock, cache: Path, out: Path, log: Path) -> list[str]:
    """Put the wheels of a lock into the folder `out`; the same files every time.

    Wheels that `cache` does not have yet are downloaded into it. Returns what the installed packages depend on and the
    lock excludes, a line each. pip's output goes to `log`. Raises StepError.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in fetched(lock.wheels, lock.wanted.python, cache, log):
        unpack(path, out)
    _strip(out)
    return _left_out(lock, out)


def abi_conflicts(folder: Path, python: str) -> list[str]:
    """Extension modules below `folder` that CPython `python` on x86-64 Linux cannot import; abi3 ones fit any."""
    interpreter, platforms = "cpython-" + python.replace(".", ""), ("x86_64-linux-gnu", None)
    found = []
    for path in sorted(folder.rglob("*")):
        match = _EXTENSION.search(path.name)
        if match and (match["interpreter"] != interpreter or match["platform"] not in platforms):
            found.append(path.relative_to(folder).as_posix())
    return found


def _applies(requirement: Requirement, python: str, extra: str = "") -> bool:
    """A marker's value on the target."""
    environment = {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})


def _strip(folder: Path) -> None:
    for cache in sorted(folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    for records in folder.glob("*.dist-info"):
        for name in _INSTALL_RECORDS:
            (records / name).unlink(missing_ok=True)


def _left_out(lock: Lock, folder: Path) -> list[str]:
    """What the installed packages need and the lock excludes. Raises StepError for a lock that lacks anything else."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    python = lock.wanted.python
    metadata = [HeaderParser().parsestr(path.read_text()) for path in folder.glob("*.dist-info/METADATA")]
    versions = {canonicalize_name(item["Name"]): item["Version"] for item in metadata}
    versions.setdefault(canonicalize_name("numpy"), lock.wanted.numpy)
    asked = [Requirement(text) for text in lock.wanted.requirements]
    extras = {canonicalize_name(wanted.name): wanted.extras for wanted in asked}
    needs = [("model.yaml", wanted) for wanted in asked if _applies(wanted, python)]
    for item in metadata:
        active = ("", *extras.get(canonicalize_name(item["Name"]), ()))
        for needed in map(Requirement, item.get_all("Requires-Dist", [])):
            if any(_applies(needed, python, extra) for extra in active):
                needs.append((f"{item['Name']} {item['Version']}", needed))
    excluded = set(map(canonicalize_name, lock.wanted.exclude))
    left_out = set()
    for who, needed in needs:
        name = canonicalize_name(needed.name)
        version = versions.get(name)
        if version is None or not needed.specifier.contains(version, prereleases=True):
            text = f"{who} needs {needed.name}{needed.specifier}{f', got {version}' if version else ''}"
            if name not in excluded:
                raise StepError(f"requirements.lock is incomplete: {text}", LOCK_AGAIN)
            left_out.add(text)
    return sorted(left_out)
