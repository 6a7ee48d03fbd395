"""What `fsck` finds, and from where it can be restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, TypeAlias

# Of files: missing, changed (other content), half (cut short), added (belongs to nothing), unreadable. Of a state:
# twice (live and retired), leftover (of a killed process), config (serves other versions than it should), server (what
# tritonserver would refuse), unsigned (though the project requires signatures), journal (a break in it).
Kind: TypeAlias = Literal[
    "missing", "changed", "half", "added", "unreadable", "twice", "leftover", "config", "server", "unsigned", "journal"
]

# A version in the repository; among the retired ones; the copy of what was made when it was published.
Where: TypeAlias = Literal["live", "retired", "record"]


class Action(Enum):
    """What a repair does."""

    COPY = "copy"  # the file is restored from another one with the right digest
    FETCH = "fetch"  # the same, from a remote
    WRITE = "write"  # it follows from other things, and is written again
    REMOVE = "remove"  # what is in its place goes to model_history/damaged/
    CLEAN = "clean"  # what a killed process left is removed
    BUILD = "build"  # the model is built again


@dataclass(frozen=True)
class Remedy:
    """How a damage is repaired. `says` completes "restore it from …" or stands alone: "remove it"."""

    action: Action
    says: str
    path: Path | None = None  # to copy from
    files: Mapping[str, Path] = field(default_factory=dict)  # the same, of a whole version
    urls: tuple[str, ...] = ()  # to fetch from, one after the other
    data: bytes | None = None  # to write


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it must be."""

    place: Path  # the file or folder
    kind: Kind
    problem: str
    model: str = ""
    version: int | None = None
    name: str = ""  # in the version's folder, or beside the versions
    where: Where = "live"
    expected: str = ""  # the SHA-256 that it must have, where that is known
    remedy: Remedy | None = None
    hint: str = ""  # what a person can do, where there is no remedy
