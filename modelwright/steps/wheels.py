"""Wheels of other interpreters: fetched once with pip, kept by their SHA-256, and unpacked into a folder.

<cache>/<sha256>/<the wheel's file>
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from modelwright.digest import sha256_file
from modelwright.errors import StepError
from modelwright.project.lockfile import Wheel, wheel_pin

# The C library of the stock container, by its Python: 3.10 is Ubuntu 22.04, 3.12 is 24.04. The older one for others.
_GLIBC_MINOR = {"3.10": 35, "3.12": 39}
_OLDEST_GLIBC_MINOR = 5  # manylinux1


def glibc_minor(python: str) -> int:
    """39 for glibc 2.39: the C library of the stock container that has this Python."""
    return _GLIBC_MINOR.get(python, min(_GLIBC_MINOR.values()))


def cached(wheel: Wheel, cache: Path) -> Path | None:
    """The file of a wheel, if it was fetched before and is what it was."""
    path = cache / wheel.sha256 / wheel.file
    return path if path.is_file() and sha256_file(path) == wheel.sha256 else None


def fetched(wheels: Sequence[Wheel], python: str, cache: Path, log: Path) -> list[Path]:
    """The files of wheels; those that are not in the cache are downloaded. pip's output goes to `log`.

    Raises StepError.
    """
    absent = [wheel for wheel in wheels if cached(wheel, cache) is None]
    if absent:
        download([wheel.line for wheel in absent], python, cache, log)
    paths = [cached(wheel, cache) for wheel in wheels]
    for wheel, path in zip(wheels, paths, strict=True):
        if path is None:  # pip takes any file that has one of the hashes, so there is no other way here
            raise StepError(f"the index has {wheel.pin} under another name than {wheel.file}", LOCK_AGAIN)
    return [path for path in paths if path]


def download(lines: Sequence[str], python: str, cache: Path, log: Path) -> list[Wheel]:
    """Download the wheels of requirement lines with hashes into the cache, no others. Raises StepError."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as name:
        folder = Path(name)
        (folder / "wanted.txt").write_text("".join(f"{line}\n" for line in lines))
        files = folder / "files"
        options = ["--require-hashes", f"--requirement={folder / 'wanted.txt'}", f"--dest={files}"]
        _pip_download(options, python, log)
        return sorted((_kept(path, cache) for path in files.iterdir()), key=lambda wheel: wheel.name)


def unpack(wheel: Path, out: Path) -> None:
    """Unpack a wheel into the folder `out`, as `pip install --target` does, without scripts. Raises StepError."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                place = _place(member.filename)
                if place and not member.is_dir():
                    target = out / place
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as reader, target.open("wb") as writer:
                        shutil.copyfileobj(reader, writer)
    except (zipfile.BadZipFile, ValueError) as error:
        raise StepError(f"{wheel.name}: not a wheel that can be unpacked: {error}", f"remove {wheel.parent}") from None


def _place(name: str) -> str:
    """Where a file of a wheel goes; '' for what is not installed. Raises ValueError for a name that leads out."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise ValueError(f"it has a file named {name}")
    if not parts[0].endswith(".data"):
        return name
    # name-1.0.data/<scheme>/…: modules and data go to the root; launchers and C headers are of no use here.
    return "/".join(parts[2:]) if len(parts) > 2 and parts[1] in ("purelib", "platlib", "data") else ""


def _kept(path: Path, cache: Path) -> Wheel:
    digest = sha256_file(path)
    place = cache / digest
    place.mkdir(exist_ok=True)
    path.replace(place / path.name)
    return Wheel(*wheel_pin(path.name), digest, path.name)


LOCK_AGAIN = "remove requirements.lock, and let it be written again: modelwright lock"


def _pip_download(options: Sequence[str], python: str, log: Path) -> None:
    arguments = [
        sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--progress-bar=off",
        "--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}",
        *(f"--platform={platform}" for platform in _platforms(python)), *options,
    ]  # fmt: skip
    with log.open("wb") as file:
        status = subprocess.run(arguments, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        raise _pip_error(log.read_text(errors="replace"), python)


def _platforms(python: str) -> list[str]:
    """Newest first, as pip prefers what comes first. pip matches a manylinux tag exactly, older ones do not follow."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(glibc_minor(python), _OLDEST_GLIBC_MINOR - 1, -1)]
    return [*tags, "manylinux2014_x86_64", "linux_x86_64"]


def _pip_error(output: str, python: str) -> StepError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [re.sub(r"^ERROR: ", "", line) for line in lines if line.startswith("ERROR:")]
    reason = "\n".join(errors or lines[-3:]) or "pip said nothing"
    if "No module named pip" in output:
        hint = f"install it: {shlex.quote(sys.executable)} -m ensurepip"
        return StepError(f"this interpreter has no pip: {sys.executable}", hint)
    if "DO NOT MATCH THE HASHES" in output:
        return StepError(f"a file of the index is not what the lock says:\n{reason}", LOCK_AGAIN)
    if any(text in output for text in ("NewConnectionError", "Failed to establish", "Max retries", "ConnectTimeout")):
        hint = "check the network and pip's index settings; wheels that were fetched before are not fetched again"
        return StepError(f"the package index cannot be reached:\n{reason}", hint)
    if "No matching distribution" in output:
        hint = f"a wheel for CPython {python} on manylinux x86-64 is needed: check versions, or pip's index settings"
        return StepError(f"pip finds no wheel: {errors[-1]}", hint)
    return StepError(f"pip failed:\n{reason}", "the step's log has pip's whole output")


def remove_leftovers(cache: Path) -> None:
    """Remove what killed downloads left behind."""
    for folder in cache.glob(".download-*"):
        shutil.rmtree(folder, ignore_errors=True)
