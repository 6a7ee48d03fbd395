"""Installs wheels into an environment of its own with pip, as the user has configured it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from modelwright.errors import DiskFullError, ServerError
from modelwright.fsops import is_full

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from modelwright.environments.interpreters import Interpreter


class NoWheelError(ServerError):
    """The package index has no wheel of a pinned version for an interpreter; it may have one for another."""


def pip_install(
    interpreter: Interpreter, pins: Sequence[str], target: Path, log: Path, whose: str = "the local server's"
) -> None:
    """Install exactly these wheels, with the user's pip configuration; pip's output is appended to `log`.

    Runs the interpreter's own pip or, if it has none, the running Python's with options for that interpreter. Raises
    ServerError with the end of pip's output; `whose` packages they are is for its message.
    """
    command = [interpreter.command, "-I", "-m", "pip", "install", "--target", str(target)]
    if not interpreter.pip:
        command[0] = sys.executable
        command += ["--implementation", "cp", "--python-version", interpreter.version]
    command += ["--no-deps", "--only-binary=:all:", "--no-warn-script-location", "--disable-pip-version-check"]
    # A configured `user` or `require-virtualenv` contradicts --target.
    variables = os.environ | {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_NO_INPUT": "1"}
    with log.open("a") as output:
        code = subprocess.call([*command, *pins], stdout=output, stderr=subprocess.STDOUT, env=variables)
    if code != 0 and is_full(target):
        raise DiskFullError(f"{target}: No space left on device", f"free some space: {whose} packages take about 1 GB")
    if code != 0:
        raise _pip_error(log, whose)


def _pip_error(log: Path, whose: str) -> ServerError:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    tail = "\n".join(f"    {line}" for line in lines[-8:])
    message = f"pip cannot install {whose} packages; the end of its output (all of it in {log}):\n{tail}"
    if any("No module named pip" in line for line in lines):
        return ServerError(message, f"install pip: {shlex.quote(sys.executable)} -m ensurepip")
    if any("No matching distribution" in line for line in lines):
        return NoWheelError(message, "point pip's index-url or find-links at an index that has this version")
    return ServerError(message, "check pip's index and the network, then run the same command again")
