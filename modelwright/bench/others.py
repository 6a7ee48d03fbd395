"""How busy other programs keep the machine while a bench runs: what they take, no contender gets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

BUSY_CORES = 0.2  # beyond this the figures are said to be doubtful


def machine_busy_s() -> float | None:
    """CPU seconds of the whole machine since it started, without idle and iowait: proc(5), /proc/stat."""
    try:
        line = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in line.split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class Others:
    """Watches while its block lasts. `own_s`: the CPU seconds of our own processes so far, this one left out."""

    def __init__(
        self,
        own_s: Callable[[], float],
        busy_s: Callable[[], float | None] = machine_busy_s,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own_s, self._busy_s, self._clock = own_s, busy_s, clock
        self.cores: float | None = None

    def __enter__(self) -> Others:
        self._start = (self._clock(), self._busy_s(), self._own_s() + time.process_time())
        return self

    def __exit__(self, *error: object) -> None:
        begun, busy_before, own_before = self._start
        busy, seconds = self._busy_s(), self._clock() - begun
        if busy is not None and busy_before is not None and seconds > 0:
            own = self._own_s() + time.process_time() - own_before
            self.cores = max(busy - busy_before - own, 0.0) / seconds


def busy_note(cores: float | None) -> list[str]:
    """What a reader must know where the machine was busy."""
    if cores is None or cores <= BUSY_CORES:
        return []
    return [f"other programs kept {cores:.1f} cores busy meanwhile: measure again on a quiet machine"]
