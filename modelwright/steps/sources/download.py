"""One file of a source, copied while it is hashed: within limits, and taken up where an earlier try ended."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.fsops import disk_errors
from modelwright.project.fetching import FetchLimits
from modelwright.project.source_lock import LockedFile
from modelwright.steps.sources.source import CHUNK, CannotSeekError, RemoteSource

_LIMITS_HINT = "see to the file; modelwright.toml can raise what is allowed: [sources] max_gb and timeout"


def download(
    source: RemoteSource, name: str, part: Path, limits: FetchLimits, expected: LockedFile | None = None
) -> LockedFile:
    """Copy a file of a source into `part`. Returns what came, which need not be what was `expected`: without a digest
    for a file that is longer, of which the rest is not read.

    With `expected`, what `part` holds is taken up: the digest at the end tells whether it belonged to the file. Raises
    ModelwrightError for a place that fails, StepError for a file above the limits. `part` stays as far as it came.
    """
    if expected and part.is_file():
        try:
            found = _copy(source, name, part, limits, expected, part.stat().st_size)
            if found == expected:
                return found
        except CannotSeekError:
            pass
    part.unlink(missing_ok=True)
    return _copy(source, name, part, limits, expected, 0)


def _copy(
    source: RemoteSource, name: str, part: Path, limits: FetchLimits, expected: LockedFile | None, offset: int
) -> LockedFile:
    deadline = time.monotonic() + limits.timeout_s
    with disk_errors(part), part.open("ab" if offset else "wb") as file:
        sha, size = _hashed(part, offset), offset
        if expected and size == expected.size_bytes:  # only its last step was missing
            return LockedFile(sha.hexdigest(), size)
        with source.read(name, offset) as pieces:
            for piece in pieces:
                size += len(piece)
                if expected and size > expected.size_bytes:
                    return LockedFile("", size)
                if size > limits.max_bytes:
                    raise StepError(f"{source.resolved}: {name}: more than {limits.max_gb:g} GB", _LIMITS_HINT)
                with disk_errors(part):  # here, since the source takes an OSError for one of its own
                    file.write(piece)
                sha.update(piece)
                if time.monotonic() > deadline:
                    reason = f"not there after {limits.timeout_s:g} s: {size:,} bytes came"
                    raise StepError(f"{source.resolved}: {name}: {reason}", _LIMITS_HINT)
    return LockedFile(sha.hexdigest(), size)


def _hashed(part: Path, size: int) -> Any:
    sha = hashlib.sha256()
    if size:
        with part.open("rb") as file:
            while chunk := file.read(CHUNK):
                sha.update(chunk)
    return sha
