"""The local server's own environment: tritonserver, and what Python models find in the stock container.

A Python model must find here what it finds in the stock container of the target release, and nothing more: the
standard library, the backend's own module, and that release's numpy. So numpy alone is in site-packages. The wheels of
the server and of onnxruntime lie apart, and only the onnxruntime backend puts them on its path. The project's own
packages are not seen at all.

It has the layout of a virtual environment, because tritonserver's embedded interpreter runs isolated: it ignores
PYTHONPATH and PYTHONHOME, and finds its packages only through the `python3` on PATH and the `pyvenv.cfg` beside it.

    <state>/26.07-py3.11-1a2b3c4d/
        environment.json                what was installed, for which interpreter
        pyvenv.cfg  bin/python3         → the interpreter
        lib/libpython3.11.so.1.0        → the library the stub embeds
        lib/python3.11/site-packages/   numpy
        server-packages/                tritonserver, onnxruntime, and what that one imports
        python/                         the Python backend, with the stub of this interpreter
        backends-5e6f7a8b/              --backend-directory: python → ../python,
                                        onnxruntime/{*.py, packages → ../../server-packages}

An environment is put in place by a rename, complete. A killed installation leaves a staging directory, which the next
one removes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.environments.folders import (
    FACTS,
    clean_variables,
    digest,
    link_python,
    read_facts,
    remove_leftovers,
    site_packages,
    staged,
)
from modelwright.environments.packages import NoWheelError, pip_install
from modelwright.errors import ServerError
from modelwright.fsops import locked
from modelwright.server.interpreters import minor_versions, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from modelwright.environments.interpreters import Interpreter
    from modelwright.triton.releases import Release

    Say = Callable[[str], None]
    Install = Callable[[Interpreter, Sequence[str], Path, Path], None]  # (interpreter, pins, target, log)

SERVER_VERSION = "2.51.0"  # of the tritonserver in nvidia-pytriton 0.7.0

_FORMAT = 2  # of the layout above; a change rebuilds
_PINS = (
    # Without its dependencies: only the server's binaries are used, not the Python package.
    "nvidia-pytriton==0.7.0",
    # What `import onnxruntime` may need. Older releases also list coloredlogs and sympy, for tools not used here.
    "flatbuffers==25.12.19",
    "packaging==26.3",
    "protobuf==6.33.6",
)
# A folder in which the server runs is on the path of Python models: this is no name that a model could import.
_SERVER_PACKAGES = "server-packages"
# Modules that left the standard library, by the release of Python that has them no more.
_REMOVED_MODULES = {12: ("asynchat", "asyncore", "distutils", "imp", "smtpd")}
_DOCKER_HINT = "serve the same repository with the stock container instead: docker compose up triton"


@dataclass(frozen=True)
class Environment:
    """One installed local server."""

    root: Path
    release: str  # "26.07"
    python_version: str  # "3.11.7", of the interpreter that models run in
    pins: tuple[str, ...]
    backends: Path  # --backend-directory

    @property
    def python(self) -> Path:
        return self.root / "bin/python3"

    @property
    def site_packages(self) -> Path:
        """What Python models can import beside the standard library."""
        return site_packages(self.root, self.python_version)

    @property
    def server_packages(self) -> Path:
        """The wheels of tritonserver and of onnxruntime."""
        return self.root / _SERVER_PACKAGES

    @property
    def server(self) -> Path:
        return self.server_packages / "pytriton/tritonserver/bin/tritonserver"

    @property
    def caches(self) -> Path:
        return self.server_packages / "pytriton/tritonserver/caches"

    @property
    def trials(self) -> tuple[list[str], ...]:
        """Commands that each start one of its programs; they end with 0 or 1 where nothing is broken."""
        load = f"import numpy, sys; sys.path.insert(0, {str(self.server_packages)!r}); import onnxruntime"
        return (
            [str(self.python), "-I", "-c", load],
            [str(self.server), "--help"],
            [str(self.root / "python/triton_python_backend_stub")],  # says that arguments are missing
        )

    def variables(self) -> dict[str, str]:
        """The environment variables for `server`: the caller's, without those that change where Python looks."""
        kept = clean_variables()
        kept["LD_LIBRARY_PATH"] = f"{self.server_packages / 'nvidia_pytriton.libs'}:{self.root / 'lib'}"
        kept["PATH"] = f"{self.root / 'bin'}:{kept.get('PATH', os.defpath)}"
        return kept


@dataclass(frozen=True)
class Host:
    """The facts about a machine that decide whether the binaries run on it."""

    system: str
    machine: str
    libc: str  # "glibc 2.36"; empty for another C library

    @classmethod
    def current(cls) -> Host:
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (AttributeError, OSError, ValueError):
            libc = ""
        return cls(platform.system(), platform.machine(), libc)


def unsupported_reason(host: Host | None = None) -> str | None:
    """Why the local server cannot run on this machine, or None if it can."""
    host = host or Host.current()
    if host.system != "Linux" or host.machine not in ("x86_64", "AMD64"):
        return f"it needs Linux x86-64, this is {host.system} {host.machine}"
    version = re.fullmatch(r"glibc (\d+)\.(\d+).*", host.libc)
    if version is None:
        return "it needs glibc 2.35 or newer; this system has another C library"
    if (int(version[1]), int(version[2])) < (2, 35):
        return f"it needs glibc 2.35 or newer; this system has {host.libc}"
    return None


def pins_for(release: Release) -> tuple[str, ...]:
    """The exact requirements of a release's local server."""
    return (*_PINS, f"onnxruntime=={release.onnxruntime}", f"numpy=={release.numpy}")


def find(
    state: Path, release: Release, python: str | None = None, *, pins: Sequence[str] | None = None
) -> Environment | None:
    """The environment that `ensure` would reuse, or None. Installs nothing and starts no process."""
    wanted = _identity(release, python, pins)
    for path in sorted(state.absolute().glob(f"{release.name}-py*-{digest(wanted)}")):
        facts = read_facts(path)
        if facts is not None and facts["identity"] == wanted and _interpreter_present(path, facts):
            return _environment(path, facts)
    return None


def ensure(
    state: Path,
    release: Release,
    say: Say,
    python: str | None = None,
    *,
    pins: Sequence[str] | None = None,
    install: Install | None = None,
    host: Host | None = None,
) -> Environment:
    """The environment for a release, installed on first use (about 100 MB to download) and reused afterwards.

    `python` is the interpreter to use; the default is the release's own if it is on PATH, else the running one.
    Of processes that need it at the same time, one installs it. Raises ServerError when the machine, the interpreter
    or the package index cannot provide it.
    """
    reason = unsupported_reason(host)
    if reason is not None:
        raise ServerError(f"the local server cannot run on this machine: {reason}", _DOCKER_HINT)
    ready = find(state, release, python, pins=pins)
    if ready is not None:
        return ready
    state = state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    waiting = "waiting for another process that is installing the local server"
    with locked(state / ".lock", "installing the local server", wait=True, say=lambda _: say(waiting)):
        ready = find(state, release, python, pins=pins)
        if ready is None:
            remove_leftovers(state)
            _install_first_fit(state, release, say, python, pins, install or pip_install)
            ready = find(state, release, python, pins=pins)
    if ready is None:
        raise ServerError(f"the local server's environment in {state} was removed while it was being installed")
    return ready


def _identity(release: Release, python: str | None, pins: Sequence[str] | None) -> dict[str, Any]:
    return {"format": _FORMAT, "pins": list(pins or pins_for(release)), "python": python or ""}


def _interpreter_present(path: Path, facts: dict[str, Any]) -> bool:
    """Whether the interpreter is still installed: both links point to it."""
    return (path / "bin/python3").exists() and (path / "lib" / Path(str(facts["libpython"])).name).exists()


def _environment(path: Path, facts: dict[str, Any]) -> Environment:
    return Environment(
        root=path,
        release=str(facts["release"]),
        python_version=str(facts["python_version"]),
        pins=tuple(facts["identity"]["pins"]),
        backends=_backends(path),
    )


def _backends(root: Path) -> Path:
    """The backend directory with the packaged onnxruntime backend, which changes more often than the pins."""
    folder = files("modelwright.server") / "backends/onnxruntime"
    sources = {path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith(".py")}
    final = root / f"backends-{digest({name: hashlib.sha256(data).hexdigest() for name, data in sources.items()})}"
    if final.is_dir():
        return final
    staging = Path(tempfile.mkdtemp(prefix=".backends-", dir=root))
    staging.chmod(0o755)
    (staging / "python").symlink_to(Path("../python"))
    (staging / "onnxruntime").mkdir()
    for name, data in sources.items():
        (staging / "onnxruntime" / name).write_bytes(data)
    (staging / "onnxruntime/packages").symlink_to(Path("../..") / _SERVER_PACKAGES)
    try:
        staging.rename(final)
    except OSError:  # another process was faster
        shutil.rmtree(staging, ignore_errors=True)
        if not final.is_dir():
            raise
    return final


def _install_first_fit(
    state: Path,
    release: Release,
    say: Say,
    python: str | None,
    pins: Sequence[str] | None,
    install: Install,
) -> None:
    """Install for the best interpreter that the package index has wheels for."""
    fit, refused = usable(release, python)
    if not fit:
        raise _no_interpreter(release, refused)
    identity = _identity(release, python, pins)
    wanted = pins or pins_for(release)
    for position, interpreter in enumerate(fit, start=1):
        say(f"installing the local server for Python {interpreter.full_version}, once: {', '.join(wanted)}")
        try:
            _install(state, release, identity, wanted, interpreter, install)
            return
        except NoWheelError:
            if position == len(fit):
                raise


def _no_interpreter(release: Release, refused: Sequence[str]) -> ServerError:
    allowed = minor_versions(release.onnxruntime)
    tried = "".join(f"\n    {line}" for line in refused)
    return ServerError(
        f"no Python on this machine can run the local server for Triton {release.name}; tried:{tried}",
        f"install Python 3.{allowed.start} to 3.{allowed.stop - 1} with a shared libpython"
        f" (a system package or `uv python install 3.{allowed.stop - 1}`), or {_DOCKER_HINT}",
    )


def _install(
    state: Path,
    release: Release,
    identity: dict[str, Any],
    pins: Sequence[str],
    interpreter: Interpreter,
    install: Install,
) -> None:
    """Build an environment in a staging directory, try it, and rename it into place."""
    with staged(state) as staging:
        packages = site_packages(staging, interpreter.full_version)
        log = state / f"install-{release.name}.log"
        log.unlink(missing_ok=True)
        of_models = [pin for pin in pins if pin.startswith("numpy==")]
        of_server = [pin for pin in pins if pin not in of_models]
        for target, wheels in ((packages, of_models), (staging / _SERVER_PACKAGES, of_server)):
            target.mkdir(parents=True)
            install(interpreter, wheels, target, log)
        _lay_out(staging, packages, interpreter, release)
        facts = {
            "identity": identity,
            "release": release.name,
            "python_version": interpreter.full_version,
            "libpython": interpreter.libpython,
        }
        (staging / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        _try_out(_environment(staging, facts))
        final = state / f"{release.name}-py{interpreter.version}-{digest(identity)}"
        if final.exists():  # its interpreter was removed
            shutil.rmtree(final)
        staging.rename(final)


def _lay_out(root: Path, packages: Path, interpreter: Interpreter, release: Release) -> None:
    """Turn installed wheels into the layout shown in the module's docstring."""
    link_python(root, interpreter)
    (root / "lib" / Path(interpreter.libpython).name).symlink_to(interpreter.libpython)
    (packages / "modelwright.pth").write_text(_start_up(interpreter, release))
    for folder in (packages, root / _SERVER_PACKAGES):
        shutil.rmtree(folder / "bin", ignore_errors=True)
    triton = root / _SERVER_PACKAGES / "pytriton/tritonserver"
    shutil.copytree(triton / "backends/python", root / "python")
    shutil.copy2(triton / "python_backend_stubs" / interpreter.version / "triton_python_backend_stub", root / "python")


def _start_up(interpreter: Interpreter, release: Release) -> str:
    """Lines of a .pth file: unlike PYTHON… variables, they reach an isolated interpreter."""
    # Otherwise importing a model's helper module leaves __pycache__ in the model repository.
    lines = ["import sys; sys.dont_write_bytecode = True"]
    wanted = int(release.python.split(".")[1])
    removed = [
        name for minor, names in _REMOVED_MODULES.items() if interpreter.minor < minor <= wanted for name in names
    ]
    if removed:  # this interpreter is older than the container's: a model must not use what that one lacks
        lines.append(f"import sys; sys.modules.update(dict.fromkeys({removed!r}))")
    return "".join(f"{line}\n" for line in lines)


def _try_out(environment: Environment) -> None:
    """Start each program once, so that a missing library is reported by name and not when a model loads."""
    for command in environment.trials:
        try:
            done = subprocess.run(command, env=environment.variables(), capture_output=True, text=True, check=False)
        except OSError as error:  # such as a state directory on a filesystem mounted noexec
            raise ServerError(f"the local server does not run on this machine: {error}", _DOCKER_HINT) from None
        if done.returncode not in (0, 1) or "Error" in done.stderr or "error while loading" in done.stderr:
            detail = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise ServerError(f"the local server does not run on this machine: {detail[0]}", _DOCKER_HINT)
