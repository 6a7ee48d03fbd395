"""Which Python runs the local server's models.

tritonserver's Python backend embeds libpython. nvidia-pytriton must have a stub for the interpreter, and numpy 1.26 and
the release's onnxruntime must have wheels for it. The release's own Python is preferred, because a builder's vendored
packages may depend on it; for everything else any interpreter that fits will do.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.environments.interpreters import probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from modelwright.environments.interpreters import Interpreter
    from modelwright.triton.releases import Release


def minor_versions(onnxruntime: str) -> range:
    """The minor versions of Python 3 that an onnxruntime release, numpy 1.26 and the stubs have binaries for."""
    minor = int(onnxruntime.split(".")[1])
    first = 11 if minor >= 24 else 10
    last = 12 if minor >= 17 else 11  # numpy 1.26 stops at 3.12
    return range(first, last + 1)


def problem(interpreter: Interpreter, release: Release) -> str:
    """Why this interpreter cannot run the release's local server; empty if it can."""
    allowed = minor_versions(release.onnxruntime)
    if not interpreter.version.startswith("3.") or interpreter.minor not in allowed:
        return f"it is Python {interpreter.version}; 3.{allowed.start} to 3.{allowed.stop - 1} is needed"
    if not interpreter.libpython:
        return "it has no shared libpython"
    return ""


def candidates(release: Release, python: str | None) -> Iterator[str]:
    """Commands to probe, best first. An explicit `python` is the only one."""
    if python is not None:
        yield python
        return
    names = [f"python{release.python}"]
    names += [f"python3.{minor}" for minor in reversed(minor_versions(release.onnxruntime))]
    found = [path for name in names if (path := shutil.which(name))]
    first = [path for path in found[:1] if Path(path).name == names[0]]
    yield from dict.fromkeys([*first, sys.executable, *found])


def usable(release: Release, python: str | None) -> tuple[list[Interpreter], list[str]]:
    """(interpreters that fit, best first; why each other candidate does not fit)."""
    fit: list[Interpreter] = []
    refused: list[str] = []
    for command in candidates(release, python):
        interpreter = probe(command)
        reason = "it does not run" if interpreter is None else problem(interpreter, release)
        if interpreter is None or reason:
            refused.append(f"{command}: {reason}")
        elif not any(Path(interpreter.executable).samefile(other.executable) for other in fit):
            fit.append(interpreter)
    return fit, refused
