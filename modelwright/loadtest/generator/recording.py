"""The record of every request, in nanoseconds, and how records of several processes are merged.

Records are merged before anything is rounded, averaged or put into buckets: percentiles cannot be merged.
"""

from __future__ import annotations

import threading
import time
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# One request; times on the monotonic clock of the machine that sent it. `code` is 0 for success, else the number of a
# failure kind, from 1; `payload` is the number of the payload that was sent.
RECORD = np.dtype([("intended_ns", "<i8"), ("start_ns", "<i8"), ("end_ns", "<i8"), ("code", "<i4"), ("payload", "<i4")])
WRONG = "wrong answer"
NOT_SENT = "not sent"  # by the client, before the end of an open loop


@dataclass
class FailureKind:
    """Failures are grouped by kind, since messages hold ids and numbers. `message` is that of the first one."""

    kind: str
    message: str


@dataclass
class Recorder:
    """The record of one process. Not thread-safe; greenlets may share it, since they switch only where they wait."""

    failures: list[FailureKind] = field(default_factory=list)
    checked: int = 0
    _rows: array[int] = field(default_factory=lambda: array("q"))
    _codes: dict[str, int] = field(default_factory=dict)

    def add(self, intended_ns: int, start_ns: int, end_ns: int, code: int, payload: int) -> None:
        self._rows.extend((intended_ns, start_ns, end_ns, payload << 32 | code))

    def code(self, kind: str, message: str) -> int:
        """The number of a failure kind; a new one is noted with its message."""
        code = self._codes.get(kind)
        if code is None:
            self.failures.append(FailureKind(kind, message))
            code = self._codes[kind] = len(self.failures)
        return code

    def take(self) -> bytes:
        """The rows since the last call, as the bytes of an array of RECORD."""
        rows, self._rows = self._rows, array("q")
        return rows.tobytes()


@dataclass
class Record:
    """The merged records of several workers. Failure kinds are renumbered, so that equal kinds have one number."""

    failures: list[FailureKind] = field(default_factory=list)
    checked: int = 0
    _parts: list[NDArray[Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, rows: bytes, failures: list[FailureKind], checked: int = 0, offset_ns: int = 0) -> NDArray[Any]:
        """Rows of one worker with its failure kinds; `offset_ns` brings its clock to the one of this record."""
        part = np.frombuffer(rows, dtype=RECORD).copy()
        with self._lock:
            numbers = np.array([0, *(self._number(failure) for failure in failures)], dtype="<i4")
            part["code"] = numbers[part["code"]]
            for name in ("intended_ns", "start_ns", "end_ns"):
                part[name] += offset_ns
            self._parts.append(part)
            self.checked += checked
        return part

    def rows(self) -> NDArray[Any]:
        """All rows, ordered by end."""
        with self._lock:
            rows = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=RECORD)
            self._parts = [rows]
        return rows[np.argsort(rows["end_ns"], kind="stable")]

    def _number(self, failure: FailureKind) -> int:
        for number, known in enumerate(self.failures, 1):
            if known.kind == failure.kind:
                return number
        self.failures.append(failure)
        return len(self.failures)


def clock_offset_ns() -> int:
    """From this machine's monotonic clock to the time of day, with which records of several machines are merged.

    Merged times agree as well as the machines' clocks do. A latency is a difference on one machine: not affected.
    """
    return time.time_ns() - time.monotonic_ns()
