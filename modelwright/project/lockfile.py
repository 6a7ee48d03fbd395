"""requirements.lock, beside a model.yaml: the exact wheels that are vendored into versions of a Python model.

It is a requirements file as pip reads it, one wheel a line, below a head that says what was resolved:

    # python: 3.12
    # numpy: 1.26.4
    # requirement: jinja2>=3
    jinja2==3.1.6 --hash=sha256:85ece44… # jinja2-3.1.6-py3-none-any.whl
    markupsafe==3.0.4 --hash=sha256:457a69a… # markupsafe-3.0.4-cp312-cp312-manylinux_2_17_x86_64.whl

`modelwright lock` writes it, and so does a build where it is missing. It belongs into version control.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from modelwright.errors import SpecError
from modelwright.fsops import read_text

FILE = "requirements.lock"

_HEAD = """\
# What is vendored into versions of this model, with all that it needs. Made by `modelwright lock` from model.yaml and
# the Triton release: change those, and let it write this file again.
"""
_FIELD = re.compile(r"# (python|numpy|requirement|exclude): (.+)")
_WHEEL = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64}) # ([\w.+!-]+\.whl)")


class LockNeededError(SpecError):
    """A model has no requirements.lock, or one that was resolved from something else."""


@dataclass(frozen=True)
class Wanted:
    """What a lock is resolved from: any other value needs another lock."""

    requirements: tuple[str, ...]  # each in one line
    exclude: tuple[str, ...]  # distributions that are left out, though others depend on them
    python: str  # "3.12", the target's
    numpy: str  # "1.26.4", which the container has


@dataclass(frozen=True)
class Wheel:
    """One wheel that is vendored."""

    name: str  # of the distribution
    version: str
    sha256: str
    file: str  # markupsafe-3.0.4-cp312-cp312-manylinux_2_17_x86_64.whl

    @property
    def pin(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def line(self) -> str:
        """As pip reads it."""
        return f"{self.pin} --hash=sha256:{self.sha256} # {self.file}"


@dataclass(frozen=True)
class Lock:
    """A requirements.lock."""

    wanted: Wanted
    wheels: tuple[Wheel, ...]  # in order of names

    @property
    def text(self) -> str:
        """The file's content."""
        wanted = self.wanted
        fields = [("python", wanted.python), ("numpy", wanted.numpy)]
        fields += [("requirement", text) for text in wanted.requirements]
        fields += [("exclude", name) for name in wanted.exclude]
        head = "".join(f"# {name}: {value}\n" for name, value in fields)
        return _HEAD + head + "".join(f"{wheel.line}\n" for wheel in self.wheels)


def wheel_pin(file: str) -> tuple[str, str]:
    """The distribution, in its normal form, and the version that the name of a wheel says."""
    name, _, rest = file.partition("-")
    return re.sub(r"[-_.]+", "-", name).lower(), rest.partition("-")[0]


def parse_lock(text: str, shown: str) -> Lock:
    """Read a lock; `shown` is how messages call the file. Raises LockNeededError for one that is damaged."""
    found: dict[str, list[str]] = {"python": [], "numpy": [], "requirement": [], "exclude": []}
    wheels: dict[str, Wheel] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if field := _FIELD.fullmatch(line):
            found[field[1]].append(field[2])
        elif wheel := _WHEEL.fullmatch(line):
            if wheel[1] in wheels:
                raise _damaged(shown, number, f"{wheel[1]} is there twice")
            if wheel_pin(wheel[4]) != (wheel[1], wheel[2]):
                raise _damaged(shown, number, f"{wheel[1]}=={wheel[2]} is not what {wheel[4]} holds")
            wheels[wheel[1]] = Wheel(*wheel.groups())
        elif line.strip() and not line.startswith("#"):
            raise _damaged(shown, number, "this is no line of such a file")
    if len(found["python"]) != 1 or len(found["numpy"]) != 1:
        raise _damaged(shown, 1, "its head does not say for which Python and numpy it is")
    wanted = Wanted(tuple(found["requirement"]), tuple(found["exclude"]), found["python"][0], found["numpy"][0])
    return Lock(wanted, tuple(wheels.values()))


def read_lock(file: Path, shown: str, wanted: Wanted) -> Lock:
    """The lock of a model. Raises LockNeededError where it is missing, damaged or was resolved from something else."""
    try:
        text = read_text(file)
    except FileNotFoundError:
        raise LockNeededError(f"{shown}: missing, and model.yaml has requirements", _hint(file)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LockNeededError(f"{shown}: cannot be read: {error}", _hint(file)) from None
    lock = parse_lock(text, shown)
    differences = "; ".join(_differences(lock.wanted, wanted))
    if differences:
        raise LockNeededError(f"{shown}: made for something else: {differences}", _hint(file))
    return lock


def _differences(was: Wanted, now: Wanted) -> Iterator[str]:
    for name, old, new in (("Python", was.python, now.python), ("numpy", was.numpy, now.numpy)):
        if old != new:
            yield f"{name} {old}, the target has {new}"
    for name, before, after in (
        ("requirements", was.requirements, now.requirements),
        ("exclude_dependencies", was.exclude, now.exclude),
    ):
        if before != after:
            yield f"{name} [{', '.join(before)}], model.yaml has [{', '.join(after)}]"


def _damaged(shown: str, line: int, reason: str) -> LockNeededError:
    return LockNeededError(f"{shown}:{line}: {reason}", "it is not edited by hand: modelwright lock writes it again")


def _hint(file: Path) -> str:
    return f"modelwright lock {file.parent.name} writes it; then commit it"
