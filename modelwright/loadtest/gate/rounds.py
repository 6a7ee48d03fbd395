"""The rounds of a gate: what each side measured, and the ratio of candidate and baseline in each round.

The sides of a round are A and A2, both the baseline, and B, the candidate. B is compared with the geometric mean of A
and A2. A2 against A shows what the machine's noise does to a model that has not changed.

The metrics, each in the regime that shows it best:

    throughput   saturation   successful requests a second
    p50, p99     fixed load   service time. Response time would add the client's own lag, which is the same on both
                              sides
    compute      fixed load   the server's time for one execution, at equal batch sizes

Compute is compared at the fixed load, where executions overlap little. At saturation every instance is busy all the
time: instances that share cores slow each other down, and a candidate with more instances would seem to compute longer.
Batch sizes differ between sides whenever anything else does, so sizes are compared one by one: the mean of log ratios,
weighted by the executions that both sides have. A size that ran a few times counts for little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modelwright.loadtest.document import Measurement, Round, ServerStatistics
from modelwright.loadtest.gate.bootstrap import rounds_needed
from modelwright.loadtest.measure.latency import NEEDED

SideName = Literal["A", "A2", "B"]
SATURATION, FIXED = "saturation", "fixed load"
BASELINES: tuple[SideName, ...] = ("A", "A2")
_MIN_EXECUTIONS = 30  # of equal batch sizes in a round, to compare
_ENOUGH = 0.8  # of the rounds
_MIN_SHARE = 0.1  # of the executions of the side that has fewer


@dataclass(frozen=True)
class Side:
    """What one side measured in one round; None if it was not measured."""

    round: int
    order: int  # its place within the round
    side: SideName
    saturation: Measurement | None
    fixed: Measurement | None

    def measured(self, regime: str) -> Measurement | None:
        return self.saturation if regime == SATURATION else self.fixed


@dataclass(frozen=True)
class Metric:
    name: str
    regime: str
    unit: str
    higher_is_better: bool = False


THROUGHPUT = Metric("throughput", SATURATION, "req/s", higher_is_better=True)
P50 = Metric("p50", FIXED, "ms")
P99 = Metric("p99", FIXED, "ms")
COMPUTE = Metric("compute", FIXED, "ms")
METRICS = (THROUGHPUT, P50, P99, COMPUTE)


@dataclass(frozen=True)
class Pair:
    """Baseline and candidate of one round, in the metric's unit."""

    baseline: float
    candidate: float

    @property
    def log_ratio(self) -> float:
        return math.log(self.candidate / self.baseline)


@dataclass(frozen=True)
class Pairs:
    """The rounds that can be compared, and the reasons why others cannot: `round 3: …`."""

    pairs: list[Pair]
    missing: list[str]

    @property
    def log_ratios(self) -> list[float]:
        return [pair.log_ratio for pair in self.pairs]


def compared(
    sides: Sequence[Side], metric: Metric, baselines: Sequence[SideName] = BASELINES, candidate: SideName = "B"
) -> Pairs:
    """Candidate against the geometric mean of the baselines, round by round."""
    pairs, missing = [], []
    for number in sorted({side.round for side in sides}):
        within = {side.side: side for side in sides if side.round == number}
        found = [_pair(within.get(name), within.get(candidate), metric) for name in baselines]
        good = [pair for pair in found if isinstance(pair, Pair)]
        if good:
            baseline = _geometric_mean([pair.baseline for pair in good])
            pairs.append(Pair(baseline, baseline * math.exp(sum(pair.log_ratio for pair in good) / len(good))))
        else:
            missing.append(f"round {number}: {next(pair for pair in found if isinstance(pair, str))}")
    return Pairs(pairs, missing)


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _pair(baseline: Side | None, candidate: Side | None, metric: Metric) -> Pair | str:
    """The values of both sides, or why they cannot be compared."""
    measured = []
    for side in (candidate, baseline):
        found = side.measured(metric.regime) if side else None
        if found is None or not found.complete:
            return "not measured to its end"
        measured.append(found)
    if metric.name == COMPUTE.name:
        return same_batches(measured[1].server, measured[0].server)
    values = [value_of(item, metric) for item in measured]
    for value in values:
        if isinstance(value, str):
            return value
    return Pair(*(float(value) for value in reversed(values)))


def value_of(measurement: Measurement, metric: Metric) -> float | str:
    """The client's value, or why it does not count. Not for compute, which needs two sides."""
    if measurement.validity.verdict == "INVALID":
        return f"the measurement is not valid: {'; '.join(measurement.validity.reasons)}"
    if metric.name == THROUGHPUT.name:
        return measurement.throughput or "no request succeeded"
    count, needed = measurement.service.count, NEEDED[metric.name]
    return measurement.service.percentiles_ms[metric.name] or f"{count:,} requests, {needed:,} are needed"


def values(sides: Sequence[Side], metric: Metric, name: SideName = "B") -> tuple[list[float], list[str]]:
    """One side's values, one a round, and why rounds are missing. Not for compute."""
    found, missing = [], []
    for side in sides:
        if side.side == name:
            measurement = side.measured(metric.regime)
            done = measurement if measurement and measurement.complete else None
            value = value_of(done, metric) if done else "not measured to its end"
            if isinstance(value, str):
                missing.append(f"round {side.round}: {value}")
            else:
                found.append(value)
    return found, missing


def too_few(good: int, missing: Sequence[str], confidence: float) -> str:
    """Why the rounds are too few for an interval; "" if they are enough. One in five may be missing."""
    rounds = good + len(missing)
    needed = max(rounds_needed(confidence), math.ceil(_ENOUGH * rounds))
    if good >= needed:
        return ""
    first = f" ({missing[0]})" if missing else ""
    return f"{good} of {rounds} rounds can be used{first}, {needed} are needed"


def same_batches(baseline: ServerStatistics | None, candidate: ServerStatistics | None) -> Pair | str:
    """The mean time of one execution, over the batch sizes that both sides ran; or why they cannot be compared."""
    if baseline is None or candidate is None:
        return "no statistics from the server"
    theirs = {batch.size: batch for batch in candidate.batches if batch.compute_ms > 0}
    both = [(batch, theirs[batch.size]) for batch in baseline.batches if batch.size in theirs and batch.compute_ms > 0]
    weights = [min(one.executions, other.executions) for one, other in both]
    total = sum(weights)
    fewer = min(sum(batch.executions for batch in side.batches) for side in (baseline, candidate))
    if total < max(_MIN_EXECUTIONS, _MIN_SHARE * fewer):
        return f"{total:,} executions had equal batch sizes on both sides, of {fewer:,}"
    logs = [
        weight * math.log(other.compute_ms / one.compute_ms) for (one, other), weight in zip(both, weights, strict=True)
    ]
    mean = sum(weight * one.compute_ms for (one, _), weight in zip(both, weights, strict=True)) / total
    return Pair(mean, mean * math.exp(sum(logs) / total))


def as_rounds(sides: Sequence[Side]) -> list[Round]:
    """The sides in the document's form. `compute_ms`: of one execution, over all batch sizes."""
    ordered = sorted(sides, key=lambda side: (side.round, side.order))
    return [_round(side) for side in ordered]


def _round(side: Side) -> Round:
    fixed, saturation = side.fixed, side.saturation
    percentiles = fixed.service.percentiles_ms if fixed else {}
    return Round(
        round=side.round,
        order=side.order,
        side=side.side,
        throughput=saturation.throughput if saturation else None,
        p50_ms=percentiles.get("p50"),
        p99_ms=percentiles.get("p99"),
        compute_ms=_mean_compute_ms(fixed.server) if fixed else None,
        failed=sum(item.requests.failed for item in (saturation, fixed) if item),
    )


def _mean_compute_ms(server: ServerStatistics | None) -> float | None:
    executions = sum(batch.executions for batch in server.batches) if server else 0
    if server is None or not executions:
        return None
    return sum(batch.executions * batch.compute_ms for batch in server.batches) / executions
