"""Which part of a request's time moved between baseline and candidate.

A request's mean time, as the client sees it, consists of the server's queue, its compute (input, inference, output)
and the rest: network and client. The parts alone do not show the cause: when one execution takes 10 % longer, requests
wait longer for a free instance, and under load nearly all of the difference is queue time. So causes are tried in this
order, and the first that holds is reported:

1. errors: the candidate fails requests.
2. queue, at saturation: the instances compute less of the time, which explains at least half of the loss of throughput,
   and the network does not: requests wait for company (a queue delay), or for one of fewer instances. Their queue time
   need not grow, since batches that wait for company are larger, and compute longer.
3. compute: one execution takes longer at equal batch sizes, or, in batches of about the same size, a request takes
   more of the server's CPU time. Its interval over rounds excludes "no change", and the slowdown explains the rest: at
   least half of the loss of throughput at saturation; with one request in flight at least half of the growth of the
   mean time, since nothing waits for anything else; and at the fixed load at least a sixth of it, since a queue at 70 %
   of capacity multiplies a slowdown by 1 / (1 - 0.7) at first (M/M/1) and by up to about six before it grows without
   limit. At saturation an execution must take as much longer there: after a pause, such as a queue delay makes, caches
   are cold, and a single request computes longer without any more work (seen: +39 %).
4. The part that moved most, if the mean time moved at all:
   - compute, with other batch sizes → batch mix; with the same → compute.
   - queue, with smaller batches → batch mix: more executions for the same requests. With larger or the same → queue: a
     longer queue delay, or fewer instances.
   - network and client.
5. Nothing moved.

A candidate that became faster is read the same way, with all signs reversed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from modelwright.loadtest.document import Attribution, Measurement, Share
from modelwright.loadtest.gate.bootstrap import Estimate, estimate_sides
from modelwright.loadtest.gate.rounds import (
    BASELINES,
    COMPUTE,
    CPU,
    FIXED,
    SATURATION,
    SINGLE,
    THROUGHPUT,
    Metric,
    Side,
    SideName,
    compared,
)
from modelwright.text import change, number, percent

_MOVED = 0.02  # a logarithm: a smaller change does not count, however certain
_BATCH_MOVED = 0.1
_CONFIDENCE = 0.95
_AMPLIFIED = 6.0
_OVERLOAD = math.log(0.95 / 0.7)  # a slowdown after which 70 % of the old capacity is the whole of the new one


@dataclass(frozen=True)
class _Split:
    """The parts of a request's mean time, in milliseconds; of one side in one round, or over its better rounds."""

    total: float
    queue: float
    compute: float
    outside: float
    batch: float | None


@dataclass(frozen=True)
class _Moved:
    """What moved. `sign`: 1 if the candidate is slower, -1 if it is faster."""

    baseline: _Split
    candidate: _Split
    total: Estimate
    compute: Estimate | None  # of one execution at equal batch sizes
    compute_here: Estimate | None  # the same in the regime where the cause is looked for
    compute_ms: tuple[float, float]
    cpu: Estimate | None  # the server's CPU time of a request
    cpu_ms: tuple[float, float]
    capacity: float | None  # the loss of throughput at saturation, a logarithm
    idle: float | None  # how much less of the time the instances compute, a logarithm
    sign: int
    regime: str


def attribute(
    sides: Sequence[Side], regime: str, seed: int, worse: bool, failed: str, differences: Sequence[str]
) -> Attribution:
    """The cause, in the regime that decided the verdict.

    `worse`: a metric failed, so the cause of a slowdown is looked for. `failed`: why failed requests are the cause,
    "" if they are not.
    """
    moved = _moved(sides, regime, seed, worse)
    if failed:
        cause, explanation = "errors", failed
    elif moved is None:
        cause, explanation = "unknown", "the server has no statistics that split a request's time"
    else:
        cause, explanation = _cause(moved)
    return Attribution(
        cause=cause,
        explanation=explanation,
        regime=regime,
        shares=_shares(moved) if moved else [],
        baseline_batch=moved.baseline.batch if moved else None,
        candidate_batch=moved.candidate.batch if moved else None,
        baseline_batches=_batches(sides, regime, BASELINES),
        candidate_batches=_batches(sides, regime, ("B",)),
        differences=list(differences),
    )


# --- what moved -------------------------------------------------------------------------------------------------------


def _moved(sides: Sequence[Side], regime: str, seed: int, worse: bool) -> _Moved | None:
    """None if no round has both sides with the server's statistics."""
    rounds = _by_round(sides, regime)
    if not rounds:
        return None
    baseline, candidate = [pair[0] for pair in rounds], [pair[1] for pair in rounds]
    total = estimate_sides([(math.log(one.total), math.log(other.total)) for one, other in rounds], seed)
    at_saturation = compared(sides, THROUGHPUT).logs
    compute, compute_ms = _estimated(sides, COMPUTE, seed, (COMPUTE.regime, FIXED, SATURATION))
    cpu, cpu_ms = _estimated(sides, CPU, seed, (CPU.regime, FIXED))
    return _Moved(
        baseline=_better_half(baseline),
        candidate=_better_half(candidate),
        total=total,
        compute=compute,
        compute_here=_estimated(sides, COMPUTE, seed, (regime,))[0],
        compute_ms=compute_ms,
        cpu=cpu,
        cpu_ms=cpu_ms,
        capacity=-estimate_sides(at_saturation, seed, THROUGHPUT.good).value if at_saturation else None,
        idle=_idle(sides, regime),
        sign=1 if worse or total.value >= 0 else -1,
        regime=regime,
    )


def _estimated(
    sides: Sequence[Side], metric: Metric, seed: int, regimes: Sequence[str]
) -> tuple[Estimate | None, tuple[float, float]]:
    """In the first of these regimes that was measured, with the medians of both sides."""
    for regime in regimes:
        found = compared(sides, replace(metric, regime=regime))
        if found.pairs:
            medians = (median(pair.baseline for pair in found.pairs), median(pair.candidate for pair in found.pairs))
            return estimate_sides(found.logs, seed), medians
    return None, (0.0, 0.0)


def _idle(sides: Sequence[Side], regime: str) -> float | None:
    """By the medians of both sides' rounds."""

    def busy(name: SideName) -> float:
        measured = [side.measured(regime) for side in sides if side.side == name]
        return median([_busy(item) for item in measured if item and item.complete and item.server] or [0.0])

    before, after = busy("A"), busy("B")
    return math.log(before / after) if before and after else None


def _busy(measurement: Measurement) -> float:
    """Milliseconds that the instances compute, all together, a second."""
    batches = measurement.server.batches if measurement.server else []
    return sum(batch.executions * batch.compute_ms for batch in batches) / measurement.measured_s


def _by_round(sides: Sequence[Side], regime: str) -> list[tuple[_Split, _Split]]:
    found = []
    for number_ in sorted({side.round for side in sides}):
        within = {side.side: _split(side.measured(regime)) for side in sides if side.round == number_}
        baseline, candidate = within.get("A"), within.get("B")
        if baseline and candidate:
            found.append((baseline, candidate))
    return found


def _split(measurement: Measurement | None) -> _Split | None:
    if measurement is None or not measurement.complete or measurement.server is None:
        return None
    server, total = measurement.server, measurement.service.mean_ms
    if not total or not server.requests:
        return None
    compute = server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms
    return _Split(total, server.queue_ms, compute, total - server.mean_ms, server.mean_batch)


def _better_half(splits: Sequence[_Split]) -> _Split:
    """The mean of the quicker half of the rounds: a round that was disturbed says nothing of the version."""
    quicker = sorted(splits, key=lambda split: split.total)[: (len(splits) + 1) // 2]
    batches = [split.batch for split in quicker if split.batch is not None]
    return _Split(
        total=fmean(split.total for split in quicker),
        queue=fmean(split.queue for split in quicker),
        compute=fmean(split.compute for split in quicker),
        outside=fmean(split.outside for split in quicker),
        batch=fmean(batches) if batches else None,
    )


def _shares(moved: _Moved) -> list[Share]:
    return [
        Share(part=part, baseline_ms=getattr(moved.baseline, field), candidate_ms=getattr(moved.candidate, field))
        for part, field in (("queue", "queue"), ("compute", "compute"), ("network and client", "outside"))
    ]


def _batches(sides: Sequence[Side], regime: str, names: Sequence[str]) -> dict[int, float]:
    """Batch size → share of the executions, all rounds together."""
    counted: Counter[int] = Counter()
    for side in sides:
        measurement = side.measured(regime) if side.side in names else None
        for batch in measurement.server.batches if measurement and measurement.server else []:
            counted[batch.size] += batch.executions
    total = sum(counted.values())
    return {size: count / total for size, count in sorted(counted.items())} if total else {}


# --- the cause --------------------------------------------------------------------------------------------------------


def _cause(moved: _Moved) -> tuple[str, str]:
    if moved.regime == SATURATION and _waits_idly(moved):
        return "queue", _idleness(moved)
    is_here = moved.regime != SATURATION or moved.compute_here is None or _explains(moved, moved.compute_here)
    if moved.compute is not None and is_here and _explains(moved, moved.compute):
        return "compute", _execution(moved, moved.compute)
    if moved.cpu is not None and abs(_batch_growth(moved)) < _BATCH_MOVED and _explains(moved, moved.cpu):
        return "compute", _cpu_time(moved, moved.cpu)
    if not _is_sure(moved.total, moved.sign):
        return "nothing moved", f"a request's mean time did not change: {_total(moved)}"
    part = max(_shares(moved), key=lambda share: moved.sign * (share.candidate_ms - share.baseline_ms))
    shown = f"{part.part}{' time' if part.part != 'network and client' else ''} "
    shown += f"{number(part.baseline_ms)} → {number(part.candidate_ms)} ms of a request's {_total(moved)}"
    if part.part == "network and client":
        return part.part, shown
    grew = _batch_growth(moved)
    is_mix = abs(grew) >= _BATCH_MOVED and (part.part == "compute" or moved.sign * grew < 0)
    return ("batch mix", f"{_mean_batch(moved)}; {shown}") if is_mix else (part.part, f"{shown}{_and_batch(moved)}")


def _waits_idly(moved: _Moved) -> bool:
    """Whether requests wait while the instances do nothing, and that costs the throughput."""
    if moved.idle is None or moved.capacity is None or moved.sign * moved.capacity < _MOVED:
        return False
    idle_ms = moved.candidate.total * (1 - math.exp(-abs(moved.idle)))
    outside_ms = moved.sign * (moved.candidate.outside - moved.baseline.outside)
    return 2 * moved.sign * moved.idle >= moved.sign * moved.capacity and 2 * outside_ms < idle_ms


def _idleness(moved: _Moved) -> str:
    assert moved.idle is not None
    queue = f"queue time {number(moved.baseline.queue)} → {number(moved.candidate.queue)} ms"
    computes = f"the instances compute {percent(abs(math.expm1(-moved.idle)))} {'less' if moved.idle > 0 else 'more'}"
    return f"{queue} of a request's {_total(moved)}; {computes} of the time{_and_batch(moved)}"


def _explains(moved: _Moved, slowdown: Estimate) -> bool:
    if not _is_sure(slowdown, moved.sign):
        return False
    by = moved.sign * slowdown.value
    if moved.capacity is not None and moved.sign * moved.capacity > max(_MOVED, 2 * by):
        return False
    if moved.regime == SINGLE:
        longer = moved.sign * (moved.candidate.compute - moved.baseline.compute)
        return 2 * longer >= moved.sign * (moved.candidate.total - moved.baseline.total)
    grew = moved.sign * moved.total.value
    return moved.regime == SATURATION or by >= _OVERLOAD or grew <= _AMPLIFIED * by


def _is_sure(found: Estimate, sign: int) -> bool:
    """Whether it certainly moved in this direction, by more than _MOVED."""
    low, high = found.interval(_CONFIDENCE)
    return sign * found.value >= _MOVED and (low > 0 if sign > 0 else high < 0)


def _batch_growth(moved: _Moved) -> float:
    before, after = moved.baseline.batch, moved.candidate.batch
    return math.log(after / before) if before and after else 0.0


def _total(moved: _Moved) -> str:
    return f"{number(moved.baseline.total)} → {number(moved.candidate.total)} ms"


def _mean_batch(moved: _Moved) -> str:
    return f"mean batch {number(moved.baseline.batch or 0)} → {number(moved.candidate.batch or 0)}"


def _and_batch(moved: _Moved) -> str:
    return f"; {_mean_batch(moved)}" if abs(_batch_growth(moved)) >= _BATCH_MOVED else ""


def _cpu_time(moved: _Moved, cpu: Estimate) -> str:
    before, after = moved.cpu_ms
    return f"a request takes {number(before)} → {number(after)} ms of the server's CPU time, {_with_interval(cpu)}"


def _with_interval(found: Estimate) -> str:
    low, high = map(math.exp, found.interval(_CONFIDENCE))
    return f"{change(math.exp(found.value))} ({percent(_CONFIDENCE)} interval {change(low)} … {change(high)})"


def _execution(moved: _Moved, compute: Estimate) -> str:
    before, after = moved.compute_ms
    text = (
        f"one execution computes {number(before)} → {number(after)} ms at equal batch sizes, {_with_interval(compute)}"
    )
    if moved.sign * (moved.candidate.queue - moved.baseline.queue) <= _MOVED * moved.baseline.total:
        return f"{text}; a request takes {_total(moved)}"
    waits = "longer" if moved.sign > 0 else "less"
    queue = f"queue time {number(moved.baseline.queue)} → {number(moved.candidate.queue)} ms"
    return f"{text}; so requests wait {waits} for it: {queue} of a request's {_total(moved)}"
