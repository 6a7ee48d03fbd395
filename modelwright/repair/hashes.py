"""SHA-256 of many files at once: read as a stream, by as many threads as there are cores."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from modelwright import tools
from modelwright.digest import sha256_file
from modelwright.fsops import not_a_file


@dataclass(frozen=True)
class Hashed:
    """What is in a file, or why it cannot be read."""

    sha256: str = ""
    size_bytes: int = 0
    problem: str = ""


def hash_files(paths: Iterable[Path]) -> dict[Path, Hashed]:
    """The content of each file. One that cannot be read, or is no regular file, has a `problem`."""
    chosen = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(tools.cores()) as threads:  # hashlib lets go of the interpreter's lock
        return dict(zip(chosen, threads.map(_hashed, chosen), strict=True))


def _hashed(path: Path) -> Hashed:
    if problem := not_a_file(path):
        return Hashed(problem=problem)
    try:
        return Hashed(sha256_file(path), path.stat().st_size)
    except OSError as error:
        return Hashed(problem=f"cannot be read: {error.strerror}")
