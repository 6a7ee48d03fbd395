"""Packages of a Python-backend model, installed beside its model.py for the target's interpreter, not for this one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from email.parser import HeaderParser
from typing import TYPE_CHECKING

from modelwright.errors import StepError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from packaging.requirements import Requirement

# The C library of the stock container, by its Python: 3.10 is Ubuntu 22.04, 3.12 is 24.04. The older one for others.
_GLIBC_MINOR = {"3.10": 35, "3.12": 39}
_OLDEST_GLIBC_MINOR = 5  # manylinux1
# Who installed it and what for, script launchers with this interpreter's path, and the list of all of these.
_INSTALL_RECORDS = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")
_EXTENSION = re.compile(r"\.(?P<interpreter>cpython-\d+\w*|pypy\d+)(-(?P<platform>[\w-]+))?\.so$")


def vendor_requirements(requirements: Sequence[str], python: str, out: Path, log: Path) -> list[str]:
    """Install wheels for CPython `python` ("3.12") on x86-64 Linux into the folder `out`; the same files every time.

    Each requirement is an exact pin, `name==version`, with extras and markers where needed; markers are read for the
    target. Dependencies are not followed: what the installed packages ask for beyond `requirements` is returned, a line
    each. pip's output goes to `log`. Raises StepError.
    """
    pins = [pin for pin in map(_pin, requirements) if pin.marker is None or _applies(pin, python)]
    out.mkdir(parents=True, exist_ok=True)
    if not pins:
        return []
    _pip_install(pins, python, out, log)
    _strip(out)
    return _missing(pins, python, out)


def abi_conflicts(folder: Path, python: str) -> list[str]:
    """Extension modules below `folder` that CPython `python` on x86-64 Linux cannot import; abi3 ones fit any."""
    interpreter, platforms = "cpython-" + python.replace(".", ""), ("x86_64-linux-gnu", None)
    found = []
    for path in sorted(folder.rglob("*")):
        match = _EXTENSION.search(path.name)
        if match and (match["interpreter"] != interpreter or match["platform"] not in platforms):
            found.append(path.relative_to(folder).as_posix())
    return found


def _pin(text: str) -> Requirement:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise StepError(f"requirement '{text}': {str(error).splitlines()[0]}", "write name==version") from error
    specifiers = list(requirement.specifier)
    exact = len(specifiers) == 1 and specifiers[0].operator == "==" and not specifiers[0].version.endswith(".*")
    if requirement.url or not exact:
        raise StepError(
            f"requirement '{text}' is no exact pin: another day it could install something else",
            f"write {requirement.name}==VERSION",
        )
    return requirement


def _applies(requirement: Requirement, python: str, extra: str = "") -> bool:
    """A marker's value on the target: pip evaluates it for the interpreter that runs pip."""
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


def _pip_install(pins: Sequence[Requirement], python: str, out: Path, log: Path) -> None:
    plain = [f"{pin.name}{pin.specifier}" for pin in pins]
    command = [
        sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off",
        "--no-deps", "--only-binary=:all:", "--no-compile", "--implementation=cp", f"--python-version={python}",
        *(f"--platform={platform}" for platform in _platforms(python)), f"--target={out}", *plain,
    ]  # fmt: skip
    with log.open("wb") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise _pip_error(log.read_text(errors="replace"), plain, python)


def _platforms(python: str) -> list[str]:
    """Newest first, as pip prefers what comes first. pip matches a manylinux tag exactly, older ones do not follow."""
    newest = _GLIBC_MINOR.get(python, min(_GLIBC_MINOR.values()))
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(newest, _OLDEST_GLIBC_MINOR - 1, -1)]
    return [*tags, "manylinux2014_x86_64", "linux_x86_64"]


def _pip_error(output: str, plain: Sequence[str], python: str) -> StepError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [re.sub(r"^ERROR: ", "", line) for line in lines if line.startswith("ERROR:")]
    reason = "\n".join(errors or lines[-3:]) or "pip said nothing"
    if "No module named pip" in output:
        return StepError(f"this interpreter has no pip: {sys.executable}", "python -m ensurepip")
    if "No matching distribution" in output:
        hint = (
            f"a wheel for CPython {python} on manylinux x86-64 is needed: check name and version, or take another one"
        )
        return StepError(f"pip finds no wheel: {errors[-1]}", hint)
    return StepError(f"pip cannot install {', '.join(plain)}:\n{reason}", "the step's log has pip's whole output")


def _strip(folder: Path) -> None:
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for cache in sorted(folder.rglob("__pycache__")):
        shutil.rmtree(cache)
    for records in folder.glob("*.dist-info"):
        for name in _INSTALL_RECORDS:
            (records / name).unlink(missing_ok=True)


def _missing(pins: Sequence[Requirement], python: str, folder: Path) -> list[str]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    metadata = [HeaderParser().parsestr(path.read_text()) for path in folder.glob("*.dist-info/METADATA")]
    versions = {canonicalize_name(item["Name"]): item["Version"] for item in metadata}
    extras = {canonicalize_name(pin.name): pin.extras for pin in pins}
    found = []
    for item in metadata:
        for text in item.get_all("Requires-Dist", []):
            needed = Requirement(text)
            wanted = any(_applies(needed, python, extra) for extra in ("", *extras[canonicalize_name(item["Name"])]))
            version = versions.get(canonicalize_name(needed.name))
            if wanted and (version is None or not needed.specifier.contains(version, prereleases=True)):
                got = f", got {version}" if version else ""
                found.append(f"{item['Name']} {item['Version']} needs {needed.name}{needed.specifier}{got}")
    return sorted(set(found))
