"""Programs of this machine, such as docker and kubectl: asked, and never an exception."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """The result of running a program. `code` is None when it is not installed or timed out: `error` says which."""

    code: int | None
    output: str = ""
    error: str = ""

    @property
    def last_line(self) -> str:
        lines = (self.error.strip() or self.output.strip()).splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}"


def run_program(command: Sequence[str], timeout_s: float, variables: Mapping[str, str] | None = None) -> Ran:
    """Run a program. Raises nothing: a program that cannot run is a result, too."""
    if shutil.which(command[0]) is None:
        return Ran(None, error=f"no {command[0]} command")
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=dict(variables) if variables is not None else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ran(None, error=f"no answer within {timeout_s:g} s")
    except OSError as error:
        return Ran(None, error=str(error))
    return Ran(done.returncode, done.stdout, done.stderr)
