"""Environments of their own: libraries whose pins clash with this project's, installed where nothing else sees them.

    environment = ensure(state, TENSORFLOW, say)     # made on first use, reused afterwards
    environment.python                               # its Python; a step starts programs with it

    <state>/tensorflow-1a2b3c4d/
        environment.json                what was installed, for which interpreter
        pyvenv.cfg  bin/python3         → the interpreter
        lib/python3.11/site-packages/   the wheels

Nothing of it is imported here. A killed installation leaves a staging directory, which the next one removes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from modelwright.environments.interpreters import Interpreter, probe
from modelwright.environments.packages import NoWheelError, pip_install
from modelwright.errors import ServerError, StepError
from modelwright.fsops import locked

Say = Callable[[str], Any]
Install = Callable[[Interpreter, Sequence[str], Path, Path, str], None]  # as `pip_install`

_FORMAT = 1  # of the layout above; a change rebuilds


@dataclass(frozen=True)
class WantedEnvironment:
    """What an environment is to hold."""

    name: str  # "tensorflow": of its folder, and in messages
    title: str  # "TensorFlow"
    pins: tuple[str, ...]  # every package, with its version
    minors: range  # the minor versions of Python 3 that all of them have wheels for
    size: str  # what a person should know before: "a download of 330 MB, 1.3 GB on disk"
    trial: str  # a program that imports what is used
    unneeded: tuple[str, ...] = ()  # folders of site-packages that nothing imports

    @property
    def identity(self) -> dict[str, Any]:
        """What a step that runs in it has in its key: the pins, and the Python that is preferred here."""
        return {"format": _FORMAT, "pins": list(self.pins), "python": self.preferred_python}

    @property
    def preferred_python(self) -> str:
        """The running Python's version if that fits, else the newest on PATH; '' for none. Starts no process."""
        fitting = next(self._candidates(), "")
        return f"3.{sys.version_info.minor}" if fitting == sys.executable else Path(fitting).name.removeprefix("python")

    def _candidates(self) -> Iterator[str]:
        if sys.version_info.minor in self.minors:
            yield sys.executable
        yield from filter(None, (shutil.which(f"python3.{minor}") for minor in reversed(self.minors)))

    def usable(self) -> list[Interpreter]:
        """The interpreters of this machine that fit, best first."""
        fit: list[Interpreter] = []
        for command in self._candidates():
            found = probe(command)
            if found is None or found.minor not in self.minors or not found.version.startswith("3."):
                continue
            if not any(Path(found.executable).samefile(other.executable) for other in fit):
                fit.append(found)
        return fit


@dataclass(frozen=True)
class OwnEnvironment:
    """One that is there."""

    root: Path
    python_version: str  # "3.11.7"

    @property
    def python(self) -> Path:
        return self.root / "bin/python3"


def find(state: Path, wanted: WantedEnvironment) -> OwnEnvironment | None:
    """The environment that `ensure` would reuse, or None. Installs nothing and starts no process."""
    root = _folder(state, wanted)
    facts = read_facts(root)
    if facts is None or facts["identity"] != wanted.identity or not (root / "bin/python3").exists():
        return None
    return OwnEnvironment(root, str(facts["python_version"]))


def ensure(state: Path, wanted: WantedEnvironment, say: Say, *, install: Install = pip_install) -> OwnEnvironment:
    """The environment, installed on first use and reused afterwards.

    Of processes that need it at the same time, one installs it. Raises StepError where no interpreter fits, or the
    package index cannot provide it.
    """
    ready = find(state, wanted)
    if ready is not None:
        return ready
    state = state.absolute()
    state.mkdir(parents=True, exist_ok=True)
    waiting = f"waiting for another process that is installing {wanted.title}"
    with locked(state / f".{wanted.name}.lock", f"installing {wanted.title}", wait=True, say=lambda _: say(waiting)):
        ready = find(state, wanted)
        if ready is None:
            remove_leftovers(state)
            _install_first_fit(state, wanted, say, install)
            ready = find(state, wanted)
    if ready is None:
        raise StepError(f"{wanted.title}'s environment in {state} was removed while it was being installed")
    return ready


def _folder(state: Path, wanted: WantedEnvironment) -> Path:
    return state.absolute() / f"{wanted.name}-{digest(wanted.identity)}"


def _install_first_fit(state: Path, wanted: WantedEnvironment, say: Say, install: Install) -> None:
    """Install for the best interpreter that the package index has wheels for."""
    fit = wanted.usable()
    if not fit:
        lowest, highest = wanted.minors.start, wanted.minors.stop - 1
        raise StepError(
            f"{wanted.title} needs Python 3.{lowest} to 3.{highest}, and none of them is on this machine",
            f"install one, as a system package or by `uv python install 3.{highest}`, and run the command again",
        )
    for interpreter in fit:
        say(f"installing {wanted.title} for Python {interpreter.full_version}, once: {wanted.size}")
        try:
            _install(state, wanted, interpreter, install)
            return
        except NoWheelError as error:
            if interpreter is fit[-1]:
                raise StepError(error.message, error.hint) from None
        except ServerError as error:
            raise StepError(error.message, error.hint) from None


def _install(state: Path, wanted: WantedEnvironment, interpreter: Interpreter, install: Install) -> None:
    """Build the environment in a staging directory, try it, and rename it into place."""
    with staged(state) as staging:
        packages = site_packages(staging, interpreter.full_version)
        packages.mkdir(parents=True)
        log = state / f"install-{wanted.name}.log"
        log.unlink(missing_ok=True)
        install(interpreter, wanted.pins, packages, log, f"{wanted.title}'s")
        for name in ("bin", *wanted.unneeded):
            shutil.rmtree(packages / name, ignore_errors=True)
        link_python(staging, interpreter)
        facts = {"identity": wanted.identity, "python_version": interpreter.full_version}
        (staging / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
        _try_out(staging, wanted)
        final = _folder(state, wanted)
        if final.exists():  # its interpreter was removed
            shutil.rmtree(final)
        staging.rename(final)


def _try_out(root: Path, wanted: WantedEnvironment) -> None:
    """Import what is used once, so that a missing library is reported by name and not as a model's fault."""
    command = [str(root / "bin/python3"), "-c", wanted.trial]
    try:
        done = subprocess.run(command, env=clean_variables(), capture_output=True, text=True, check=False, cwd=root)
    except OSError as error:  # such as a state directory on a filesystem mounted noexec
        raise StepError(f"{wanted.title} does not run on this machine: {error}") from None
    if done.returncode != 0:
        detail = [line for line in done.stderr.strip().splitlines() if line.strip()][-1:]
        why = detail[0] if detail else f"exit code {done.returncode}"
        raise StepError(
            f"{wanted.title} does not run on this machine: {why}",
            "its wheels need Linux x86-64 with glibc 2.27 or newer, and a CPU with AVX",
        )
