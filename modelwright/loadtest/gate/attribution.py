"""Which part of a request's time moved between baseline and candidate.

A request's mean time, as the client sees it, consists of the server's queue, its compute (input, inference, output)
and the rest: network and client. The parts alone do not show the cause: when one execution takes 10 % longer, requests
wait longer for a free instance, and under load nearly all of the difference is queue time. So causes are tried in this
order, and the first that holds is reported:

1. errors: the candidate fails requests.
2. compute: one execution takes longer at equal batch sizes. Its interval over rounds excludes "no change", and the
   slowdown explains the rest: at least half of the loss of throughput at saturation; and at the fixed load at least a
   sixth of the growth of the mean time, since a queue at 70 % of capacity multiplies a slowdown by 1 / (1 - 0.7) at
   first (M/M/1) and by up to about six before it grows without limit.
3. The part that moved most, if the mean time moved at all:
   - compute, with other batch sizes → batch mix; with the same → compute.
   - queue, with smaller batches → batch mix: more executions for the same requests. With larger or the same → queue: a
     longer queue delay, or fewer instances.
   - network and client.
4. Nothing moved.

A candidate that became faster is read the same way, with all signs reversed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from modelwright.loadtest.document import Attribution, Measurement, Share
from modelwright.loadtest.gate.bootstrap import Estimate, estimate
from modelwright.loadtest.gate.rounds import BASELINES, COMPUTE, FIXED, SATURATION, THROUGHPUT, Side, compared
from modelwright.text import change, number, percent

_MOVED = 0.02  # a logarithm: a smaller change does not count, however certain
_BATCH_MOVED = 0.1
_CONFIDENCE = 0.95
_AMPLIFIED = 6.0
_OVERLOAD = math.log(0.95 / 0.7)  # a slowdown after which 70 % of the old capacity is the whole of the new one


@dataclass(frozen=True)
class _Split:
    """The parts of a request's mean time, in milliseconds; of one side in one round, or medians over rounds."""

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
    compute_ms: tuple[float, float]
    capacity: float | None  # the loss of throughput at saturation, a logarithm
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
    total = estimate([math.log(candidate.total / baseline.total) for baseline, candidate in rounds], seed)
    at_saturation = compared(sides, THROUGHPUT).log_ratios
    moved = _Moved(
        baseline=_over([baseline for baseline, _ in rounds], median),
        candidate=_over([candidate for _, candidate in rounds], median),
        total=total,
        compute=None,
        compute_ms=(0.0, 0.0),
        capacity=-median(at_saturation) if at_saturation else None,
        sign=1 if worse or total.median >= 0 else -1,
        regime=regime,
    )
    return _with_compute(moved, sides, seed)


def _with_compute(moved: _Moved, sides: Sequence[Side], seed: int) -> _Moved:
    """Add compute at equal batch sizes: at the fixed load, as the gate compares it, else at saturation."""
    for regime in (FIXED, SATURATION):
        found = compared(sides, replace(COMPUTE, regime=regime)).pairs
        if found:
            baseline, candidate = (median(pair.baseline for pair in found), median(pair.candidate for pair in found))
            compute = estimate([pair.log_ratio for pair in found], seed)
            return replace(moved, compute=compute, compute_ms=(baseline, candidate))
    return moved


def _by_round(sides: Sequence[Side], regime: str) -> list[tuple[_Split, _Split]]:
    found = []
    for number_ in sorted({side.round for side in sides}):
        within = {side.side: _split(side.measured(regime)) for side in sides if side.round == number_}
        baselines = [split for name in BASELINES if (split := within.get(name))]
        candidate = within.get("B")
        if baselines and candidate:
            found.append((_over(baselines, _mean), candidate))
    return found


def _split(measurement: Measurement | None) -> _Split | None:
    if measurement is None or not measurement.complete or measurement.server is None:
        return None
    server, total = measurement.server, measurement.service.mean_ms
    if not total or not server.requests:
        return None
    compute = server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms
    return _Split(total, server.queue_ms, compute, total - server.mean_ms, server.mean_batch)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _over(splits: Sequence[_Split], summary: Callable[[list[float]], float]) -> _Split:
    batches = [split.batch for split in splits if split.batch is not None]
    return _Split(
        total=summary([split.total for split in splits]),
        queue=summary([split.queue for split in splits]),
        compute=summary([split.compute for split in splits]),
        outside=summary([split.outside for split in splits]),
        batch=summary(batches) if batches else None,
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
    if _compute_explains(moved):
        return "compute", _execution(moved)
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


def _compute_explains(moved: _Moved) -> bool:
    if moved.compute is None or not _is_sure(moved.compute, moved.sign):
        return False
    by = moved.sign * moved.compute.median
    if moved.capacity is not None and moved.sign * moved.capacity > max(_MOVED, 2 * by):
        return False
    grew = moved.sign * moved.total.median
    return moved.regime == SATURATION or by >= _OVERLOAD or grew <= _AMPLIFIED * by


def _is_sure(found: Estimate, sign: int) -> bool:
    """Whether it certainly moved in this direction, by more than _MOVED."""
    low, high = found.interval(_CONFIDENCE)
    return sign * found.median >= _MOVED and (low > 0 if sign > 0 else high < 0)


def _batch_growth(moved: _Moved) -> float:
    before, after = moved.baseline.batch, moved.candidate.batch
    return math.log(after / before) if before and after else 0.0


def _total(moved: _Moved) -> str:
    return f"{number(moved.baseline.total)} → {number(moved.candidate.total)} ms"


def _mean_batch(moved: _Moved) -> str:
    return f"mean batch {number(moved.baseline.batch or 0)} → {number(moved.candidate.batch or 0)}"


def _and_batch(moved: _Moved) -> str:
    return f"; {_mean_batch(moved)}" if abs(_batch_growth(moved)) >= _BATCH_MOVED else ""


def _execution(moved: _Moved) -> str:
    assert moved.compute is not None
    low, high = map(math.exp, moved.compute.interval(_CONFIDENCE))
    before, after = moved.compute_ms
    text = (
        f"one execution computes {number(before)} → {number(after)} ms at equal batch sizes, "
        f"{change(math.exp(moved.compute.median))} ({percent(_CONFIDENCE)} interval {change(low)} … {change(high)})"
    )
    if moved.sign * (moved.candidate.queue - moved.baseline.queue) <= _MOVED * moved.baseline.total:
        return f"{text}; a request takes {_total(moved)}"
    waits = "longer" if moved.sign > 0 else "less"
    queue = f"queue time {number(moved.baseline.queue)} → {number(moved.candidate.queue)} ms"
    return f"{text}; so requests wait {waits} for it: {queue} of a request's {_total(moved)}"
