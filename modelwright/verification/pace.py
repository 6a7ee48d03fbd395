"""How much faster one call is than another, measured in turns so that what slows the machine down slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

_SECONDS = 1.0  # of measuring, in all
_WARM_UP = 3
_LEAST_ROUNDS = 7
_MOST_ROUNDS = 400
_SLICE_S = 0.005  # calls that are shorter are repeated until a turn takes this long

Clock = Callable[[], float]


def interleaved(
    calls: Mapping[str, Callable[[], object]], *, seconds: float = _SECONDS, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """{name: seconds a call, a value a round}: A B C, A B C, … in `seconds` in all, at least seven rounds."""
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        for _ in range(_WARM_UP):
            call()
        started = clock()
        call()
        repeats[name] = max(1, round(_SLICE_S / max(clock() - started, 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = clock()
    for number in range(_MOST_ROUNDS):
        if number >= _LEAST_ROUNDS and clock() - began > seconds:
            break
        for name, call in calls.items():
            started = clock()
            for _ in range(repeats[name]):
                call()
            times[name].append((clock() - started) / repeats[name])
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The median of the rounds' ratios: 0.5 where `times` are half of `base`."""
    return statistics.median(one / other for one, other in zip(times, base, strict=True))
