"""Contenders take turns, so that what else the machine does falls on all alike; and what follows from their rounds.

A round has a block of calls of every contender, in random order. The unit of the statistics is a round, as in the
performance gate (`loadtest/gate/bootstrap.py`): its median call. A speed-up is the ratio of two such medians of one
round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from modelwright.bench.children import ContenderError
from modelwright.bench.document import BatchLatency, Ratio
from modelwright.loadtest.gate.bootstrap import estimate, rounds_needed
from modelwright.loadtest.measure.latency import latency

CONFIDENCE = 0.95
FEWEST_ROUNDS = rounds_needed(CONFIDENCE)
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class BenchPlan:
    """How often and how long. `seconds`: of one block of calls."""

    rounds: int = 10
    seconds: float = 0.2
    warmup_s: float = 0.3
    threads: int = 1
    seed: int = 7


class Timed(Protocol):
    """What can be timed; `Child` in practice. Both raise ContenderError."""

    def time(self, batch: int, seconds: float) -> tuple[int, ...]: ...


@dataclass
class Turns:
    """What was measured: (contender, batch) → nanoseconds of the calls, a list a round."""

    calls_ns: dict[tuple[str, int], list[tuple[int, ...]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # contender → why it dropped out


def take_turns(
    contenders: Mapping[str, Timed], batches: Mapping[str, Sequence[int]], plan: BenchPlan, say: Callable[[str], object]
) -> Turns:
    """All rounds of all batch sizes. A contender that fails drops out; the others go on.

    `batches` are those of each contender.
    """
    turns = Turns()
    for batch in sorted({size for sizes in batches.values() for size in sizes}):
        running = [name for name in contenders if batch in batches[name]]
        say(f"batch {batch}: {plan.rounds} rounds of {', '.join(running)}")
        for number in range(plan.rounds):
            order = list(running)
            Random(f"{plan.seed} {batch} {number}").shuffle(order)  # noqa: S311 (an order, no secret)
            for name in order:
                if name in turns.failed:
                    continue
                try:
                    taken = contenders[name].time(batch, plan.seconds)
                except ContenderError as error:
                    turns.failed[name] = str(error)
                    continue
                turns.calls_ns.setdefault((name, batch), []).append(taken)
    return turns


def batch_latency(batch: int, rounds_ns: Sequence[Sequence[int]], seed: int) -> BatchLatency:
    """At least one round with at least one call."""
    import numpy as np

    medians_ms = [statistics.median(calls) / _NS_PER_MS for calls in rounds_ns]
    found = estimate([math.log(value) for value in medians_ms], seed)
    low, high = found.interval(CONFIDENCE)
    calls = np.concatenate([np.asarray(calls, dtype=np.int64) for calls in rounds_ns])
    median_ms = math.exp(found.value)
    return BatchLatency(
        batch=batch,
        calls=len(calls),
        median_ms=median_ms,
        low_ms=math.exp(low),
        high_ms=math.exp(high),
        p95_ms=latency(calls).percentiles_ms["p95"],
        rows_per_s=batch * 1000 / median_ms,
        rounds_ms=medians_ms,
    )


def speedup(source: Sequence[float], other: Sequence[float], seed: int, *, higher_is_better: bool = False) -> Ratio:
    """How many times better `other` is, round by round: times, or rates where more is better."""
    pairs = list(zip(source, other, strict=False))
    sign = -1 if higher_is_better else 1
    found = estimate([sign * math.log(one / two) for one, two in pairs], seed)
    low, high = found.interval(CONFIDENCE)
    values = {"ratio": found.value, "low": low, "high": high}
    return Ratio(confidence=CONFIDENCE, rounds=len(pairs), **{name: math.exp(value) for name, value in values.items()})


def is_beyond(found: Ratio) -> bool:
    """Whether the interval leaves "no difference" out, and has rounds enough to say so."""
    return found.rounds >= FEWEST_ROUNDS and not found.low <= 1 <= found.high
