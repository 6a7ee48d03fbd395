"""TensorRT plans: which TensorRT built one, read without TensorRT; and which TensorRT loads it.

A plan begins with the tag `ftrt`, a serialisation version, and at byte 24 the four parts of the version that built it:
`trtexec --getPlanVersionOnly` reads these 28 bytes (TensorRT's samples/common/sampleEngines.cpp, from 8.6 on). These
do not say whether a plan is version compatible, and for which GPU it was built.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from modelwright.fsops import open_file
from modelwright.triton.file_types import EMPTY, PLAN_TAG, FileType, file_type
from modelwright.triton.releases import known_releases, tensorrt_of

_HEADER = struct.Struct("<4sI16x4B")
_FIRST_WITH_VERSION = (8, 6)  # older ones have other bytes there, and no release in our data loads them
# Version-compatible plans that another major version loads (TensorRT's support matrix: 8 in 10, 10 in 11, no other).
_ACROSS_MAJORS = {(8, 10), (10, 11)}
_MORE_PARTS = 3  # the fourth part, a build number, does not matter


@dataclass(frozen=True)
class PlanHeader:
    """A plan's header. `version` is '' where this serialisation version is not known here."""

    version: str  # of the TensorRT that built it: "10.13.0.35"


@dataclass(frozen=True)
class TensorRtOf:
    """The TensorRT of a Triton release: a version, or between which ones it lies, as releases never go back."""

    exact: str | None
    at_least: str | None
    at_most: str | None

    def __str__(self) -> str:
        if self.exact:
            return self.exact
        if self.at_least and self.at_most:
            return f"{self.at_least} to {self.at_most}"
        return f"{self.at_least} or later" if self.at_least else f"{self.at_most} or earlier"


def read_plan(path: Path) -> PlanHeader | FileType:
    """The header of a plan, or what the file is instead. Raises OSError."""
    with open_file(path) as file:
        head = file.read(_HEADER.size)
    if not head:
        return EMPTY
    if head.startswith(PLAN_TAG) and len(head) < _HEADER.size:
        return FileType(f"a TensorRT plan that is cut short after {len(head)} bytes", "copy or build it again")
    if not head.startswith(PLAN_TAG):
        return file_type(path) or FileType(
            "of an unknown format", "a plan begins with the bytes 'ftrt': build it again"
        )
    _, serialisation, *version = _HEADER.unpack(head)
    return PlanHeader(".".join(map(str, version)) if serialisation == 0 else "")


@cache
def tensorrt_in(release: str) -> TensorRtOf:
    """What is known of the TensorRT in a release's container."""
    names = known_releases()
    at = names.index(release)
    before = [tensorrt_of(name) for name in names[:at]]
    after = [tensorrt_of(name) for name in names[at + 1 :]]
    return TensorRtOf(tensorrt_of(release), next(filter(None, reversed(before)), None), next(filter(None, after), None))


def loads(version: str, compatible: bool, runtime: TensorRtOf) -> bool | None:
    """Whether a plan of a TensorRT loads in another; None where it is not known.

    `compatible`: built version compatible, for a server that runs with --backend-config=tensorrt,
    version-compatible=true.
    """
    if runtime.exact:
        return _loads(version, compatible, runtime.exact)
    built = _parts(version)
    if built < _FIRST_WITH_VERSION or (runtime.at_most and built > _parts(runtime.at_most)):
        return False
    if runtime.at_least and built < _parts(runtime.at_least):
        return None if _loads(version, compatible, runtime.at_least) else False  # it may be of a later major version
    return None


def same_version(first: str, second: str) -> bool:
    """Whether two texts mean one TensorRT: of "10.7.0.23", "10.7.0" and "10.7.0.post1" no number differs."""
    numbers = ([part for part in version.split(".") if part.isdecimal()] for version in (first, second))
    return all(one == other for one, other in zip(*numbers, strict=False))


def _loads(version: str, compatible: bool, runtime: str) -> bool:
    built, runs = _parts(version), _parts(runtime)
    if built == runs:
        return True
    same_or_next = built[0] == runs[0] or (built[0], runs[0]) in _ACROSS_MAJORS
    return compatible and _FIRST_WITH_VERSION <= built < runs and same_or_next


def _parts(version: str) -> tuple[int, ...]:
    """The parts that count; those that a text lacks, or that are no numbers, are 0."""
    parts = [int(part) if part.isdecimal() else 0 for part in version.split(".")[:_MORE_PARTS]]
    return tuple(parts + [0] * (_MORE_PARTS - len(parts)))
