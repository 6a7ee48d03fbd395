"""A tritonserver that is on the machine already, with its own backends: in the stock container, on a GPU machine.

It is used in place of the downloaded one where `tritonserver` is on PATH, or where MODELWRIGHT_TRITONSERVER names the
program; MODELWRIGHT_BACKEND_DIRECTORY names its backends, which are those beside it otherwise. The options
--tritonserver and --backend-directory set these variables, so that a build's workers see them, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from modelwright.errors import ServerError
from modelwright.gpus import visible_gpus
from modelwright.server import BACKENDS as DOWNLOADED
from modelwright.server.environment import Environment
from modelwright.triton.releases import Release

PROGRAM, BACKENDS = "MODELWRIGHT_TRITONSERVER", "MODELWRIGHT_BACKEND_DIRECTORY"
_NO_BACKEND = re.compile(r"unable to find (?:Python backend based )?backend library for backend '([^']+)'")


@dataclass(frozen=True)
class NativeServer(Environment):
    """A server with everything that its process finds by itself: its libraries, its Python, its GPUs."""

    program: Path
    found: str  # how: "on PATH", or the variable that names it

    @property
    def server(self) -> Path:
        return self.program

    @property
    def caches(self) -> Path:
        return self.root / "caches"

    def variables(self) -> dict[str, str]:
        """The caller's own, unchanged: the stock container says there where its libraries are."""
        return dict(os.environ)

    @property
    def version(self) -> str:
        """As the file says that the stock container has beside it; '' where there is none."""
        try:
            return (self.root / "TRITON_VERSION").read_text(encoding="utf-8")[:40].strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def identity(self) -> str:
        """Another one where the program or the backends are others: what passed there may not pass here."""
        changed_ns = [path.stat().st_mtime_ns for path in (self.program, self.backends)]
        return f"{self.program} {self.backends} {self.version} {changed_ns}"

    def backend_names(self) -> list[str]:
        return sorted(path.name for path in self.backends.iterdir() if path.is_dir())

    def explained(self, reason: str) -> str:
        """Why a model does not load, in words that name the backends where one is missing."""
        missing = _NO_BACKEND.search(reason)
        if missing is None:
            return reason
        return f"this server has no {missing[1]} backend: it has {', '.join(self.backend_names())} ({reason})"


def find_native(target: Release) -> NativeServer | None:
    """The server that is there; None where the downloaded one is to be used.

    Raises ServerError where a variable names what is not there, or a server has no backends beside it.
    """
    there = _there()
    if there is None:
        return None
    return NativeServer(there.root, target.name, target.python, (), there.backends, there.program, there.found)


def backends_here() -> frozenset[str]:
    """The backends of the server that commands use on this machine.

    Those of the downloaded one where a server is named that is not there: what starts a server says so.
    """
    with contextlib.suppress(ServerError):
        there = _there()
        if there:
            return frozenset(path.name for path in there.backends.iterdir() if path.is_dir())
    return DOWNLOADED


def may_be_lacking(backend: str, on_gpus: bool) -> bool:
    """Whether a model that does not load here may be right all the same, for a server with more than this one.

    A server that is there is the one to serve it: only a GPU may be missing then.
    """
    with contextlib.suppress(ServerError):
        if _there():
            return on_gpus and not visible_gpus()
    return on_gpus or bool(backend and backend not in DOWNLOADED)


@dataclass(frozen=True)
class _There:
    program: Path
    root: Path
    backends: Path
    found: str


def _there() -> _There | None:
    named = os.environ.get(PROGRAM)
    place = named or shutil.which("tritonserver")
    if place is None:
        if os.environ.get(BACKENDS):
            raise ServerError(
                "--backend-directory: there is no tritonserver to use it with", "give --tritonserver FILE"
            )
        return None
    program = Path(place).absolute()
    if not os.access(program, os.X_OK) or program.is_dir():
        raise ServerError(f"--tritonserver {program}: is no program", "such as /opt/tritonserver/bin/tritonserver")
    # A link on PATH leads into the server's folder, where its backends are.
    roots = [program.parents[1], program.resolve().parents[1]]
    root = next((folder for folder in roots if (folder / "backends").is_dir()), roots[0])
    backends = Path(os.environ.get(BACKENDS) or root / "backends").absolute()
    if not backends.is_dir():
        hint = "--backend-directory DIR names them, /opt/tritonserver/backends for instance"
        raise ServerError(f"{program}: its backends are not in {backends}", hint)
    found = "named by --tritonserver" if named else "on PATH"
    return _There(program, root, backends, found)
