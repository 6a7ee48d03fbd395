"""The rounds of a gate: what each side measured, and the values of the two sides that are compared.

The sides are A, the baseline, A2, the baseline once more, and B, the candidate. The rounds of the calibration have A
and A2: A2 against A shows what the machine's noise does to a model that has not changed. The rounds of the comparison
have A and B.

The metrics, each in the regime that shows it best:

    cpu          saturation      CPU time of the server's processes a successful request
    throughput   saturation      successful requests a second
    p50          one in flight   service time, of a request that waits for no other: a neighbour moves it least
    compute      one in flight   the server's time for one execution, at equal batch sizes
    p50, p99     fixed load      service time, where a fixed load is measured. Response time would add the client's own
                                 lag, which is the same on both sides

Compute is compared where executions do not overlap. At saturation every instance is busy all the time: instances that
share cores slow each other down, and a candidate with more instances would seem to compute longer. Sizes of batches are
compared one by one: the mean of log ratios, weighted by the executions that both sides have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from modelwright.loadtest.document import Measurement, Round, ServerStatistics
from modelwright.loadtest.gate.bootstrap import GOOD, rounds_needed
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.measure.measurement import MAX_OF_CEILING

SideName = Literal["A", "A2", "B"]
SATURATION, SINGLE, FIXED = "saturation", "one in flight", "fixed load"
BASELINES: tuple[SideName, ...] = ("A", "A2")
_MIN_EXECUTIONS = 10  # of equal batch sizes in a round, to compare
_ENOUGH = 0.8  # of the rounds
_MIN_SHARE = 0.1  # of the executions of the side that has fewer


@dataclass(frozen=True)
class Side:
    """What one side measured in one round, by regime."""

    round: int
    order: int  # its place within the round
    side: SideName
    measurements: Mapping[str, Measurement]

    def measured(self, regime: str) -> Measurement | None:
        return self.measurements.get(regime)


@dataclass(frozen=True)
class Metric:
    name: str
    regime: str
    unit: str
    higher_is_better: bool = False
    explains: bool = False  # a part of what another metric has as a whole

    @property
    def good(self) -> float:
        """The quantile of a side's rounds that is compared: its better rounds."""
        return 1 - GOOD if self.higher_is_better else GOOD


CPU = Metric("cpu", SATURATION, "ms")
THROUGHPUT = Metric("throughput", SATURATION, "req/s", higher_is_better=True)
P50 = Metric("p50", SINGLE, "ms")
COMPUTE = Metric("compute", SINGLE, "ms", explains=True)
FIXED_P50 = Metric("p50", FIXED, "ms")
FIXED_P99 = Metric("p99", FIXED, "ms")
METRICS = (CPU, THROUGHPUT, P50, COMPUTE, FIXED_P50, FIXED_P99)


@dataclass(frozen=True)
class Pair:
    """Baseline and candidate of one round, in the metric's unit."""

    baseline: float
    candidate: float


@dataclass(frozen=True)
class Pairs:
    """The rounds that can be compared, and the reasons why others cannot: `round 3: …`."""

    pairs: list[Pair]
    missing: list[str]

    @property
    def logs(self) -> list[tuple[float, float]]:
        return [(math.log(pair.baseline), math.log(pair.candidate)) for pair in self.pairs]


def compared(sides: Sequence[Side], metric: Metric, candidate: SideName = "B") -> Pairs:
    """Candidate and baseline, round by round; with `candidate` "A2" those of the calibration."""
    pairs, missing = [], []
    for number, (baseline, other) in sorted(_rounds_with(sides, candidate).items()):
        pair = _pair(baseline, other, metric)
        if isinstance(pair, Pair):
            pairs.append(pair)
        else:
            missing.append(f"round {number}: {pair}")
    return Pairs(pairs, missing)


def _rounds_with(sides: Sequence[Side], candidate: SideName) -> dict[int, tuple[Side | None, Side]]:
    """{round: its baseline, the other side} of the rounds that have the other side."""
    baselines = {side.round: side for side in sides if side.side == "A"}
    return {side.round: (baselines.get(side.round), side) for side in sides if side.side == candidate}


def _pair(baseline: Side | None, candidate: Side, metric: Metric) -> Pair | str:
    """The values of both sides, or why they cannot be compared."""
    measured = []
    for side in (baseline, candidate):
        found = side.measured(metric.regime) if side else None
        if found is None or not found.complete:
            return "not measured to its end"
        measured.append(found)
    if metric.name == COMPUTE.name:
        return same_batches(measured[0].server, measured[1].server)
    values = [value_of(item, metric) for item in measured]
    for value in values:
        if isinstance(value, str):
            return value
    return Pair(*(float(value) for value in values))


def value_of(measurement: Measurement, metric: Metric) -> float | str:
    """The value, or why it does not count. Not for compute, which needs two sides."""
    if metric.name == CPU.name:
        return (measurement.server and measurement.server.cpu_ms_per_request) or "the server's CPU time is not known"
    spoiled = why_spoiled(measurement)
    if spoiled:
        return spoiled
    if metric.name == THROUGHPUT.name:
        return measurement.throughput or "no request succeeded"
    count, needed = measurement.service.count, NEEDED[metric.name]
    return measurement.service.percentiles_ms[metric.name] or f"{count:,} requests, {needed:,} are needed"


def why_spoiled(measurement: Measurement) -> str:
    """Why the client's figures are not the server's: it sent late, or not at all; "" where they are.

    A client that is near its own limit spoils nothing: it is on both sides.
    """
    if measurement.requests.not_sent:
        return f"the client did not send {measurement.requests.not_sent:,} requests"
    if measurement.validity.verdict == "VALID" or client_limits(measurement):
        return ""
    return f"the measurement is not valid: {'; '.join(measurement.validity.reasons)}"


def client_limits(measurement: Measurement) -> bool:
    """Whether the client may be the limit of a throughput: it can send less than twice as much."""
    ceiling = measurement.client.ceiling
    return (
        measurement.load.mode == "closed" and ceiling is not None and measurement.throughput > MAX_OF_CEILING * ceiling
    )


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
    """The sides in the document's form."""
    ordered = sorted(sides, key=lambda side: (side.round, side.order))
    return [_round(side) for side in ordered]


def _round(side: Side) -> Round:
    saturation, single, fixed = (side.measured(regime) for regime in (SATURATION, SINGLE, FIXED))
    return Round(
        round=side.round,
        order=side.order,
        side=side.side,
        throughput=saturation.throughput if saturation else None,
        cpu_ms=saturation.server.cpu_ms_per_request if saturation and saturation.server else None,
        p50_ms=next((item.service.percentiles_ms["p50"] for item in (single, fixed) if item), None),
        p99_ms=fixed.service.percentiles_ms["p99"] if fixed else None,
        compute_ms=_mean_compute_ms(single.server) if single else None,
        failed=sum(item.requests.failed for item in side.measurements.values()),
    )


def _mean_compute_ms(server: ServerStatistics | None) -> float | None:
    """Of one execution, over all batch sizes."""
    executions = sum(batch.executions for batch in server.batches) if server else 0
    if server is None or not executions:
        return None
    return sum(batch.executions * batch.compute_ms for batch in server.batches) / executions
