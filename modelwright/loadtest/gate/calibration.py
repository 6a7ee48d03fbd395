"""What this machine can decide: the baseline against itself, before anything is compared with the candidate.

- **Gated** is a metric whose interval, baseline against itself, lies within ± margin. Others are reported. The
  candidate has no part in this choice.
- **The statistic** of a metric is the one of two with the narrower interval here: the better quarter of each side's
  rounds, where a neighbour takes the processor now and then; or the median of the rounds' ratios, where the whole
  machine is faster and slower for seconds, which both sides of a round share. On such a machine (correlation of the
  sides 0.65 to 0.83) the standard error over 20 rounds was 1.9 % and 1.0 % for the p50.
- **Rounds of the calibration**: CALIBRATION. As many again, once, if that may bring another metric within its margin;
  up to three times as many if no metric is gated yet.
- **Rounds of the comparison**: ROUNDS before the first look. Before the second, as many as narrow the intervals of the
  gated metrics to half of the margin, so that a version that has not changed is not left undecided; at least twice
  ROUNDS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from modelwright.loadtest.gate.bootstrap import Estimate, estimate, estimate_sides
from modelwright.loadtest.gate.rounds import THROUGHPUT, Metric, Pairs, Side, SideName, client_limits, compared, too_few
from modelwright.text import change, percent

Statistic = Literal["better quarter", "median ratio"]
_STATISTICS: tuple[Statistic, ...] = ("better quarter", "median ratio")
CALIBRATION, ROUNDS = 8, 10
_CAN_NARROW = 3.0  # times the margin: a wider interval does not fit after so many rounds more
_TIMES_IF_GATED, _TIMES = 2, 3  # CALIBRATION, at most
_ROOM = 0.5  # of the margin, for the interval of the comparison


@dataclass(frozen=True)
class Noise:
    """The baseline against itself in one metric. `limit` is the margin as a logarithm, more being worse."""

    metric: Metric
    margin: float
    limit: float
    pairs: Pairs
    found: Estimate | None  # more is worse
    confidence: float
    why_reported: str  # "": it is gated
    statistic: Statistic = "better quarter"

    @property
    def gated(self) -> bool:
        return not self.why_reported

    @property
    def extent(self) -> float:
        """How far the baseline may be from itself, a logarithm; infinite if it is not known."""
        return max(map(abs, self.found.interval(self.confidence))) if self.found else math.inf


def noise_of(sides: Sequence[Side], metric: Metric, margin: float, seed: int, confidence: float) -> Noise:
    pairs = compared(sides, metric, "A2")
    why_not = too_few(len(pairs.pairs), pairs.missing, confidence)
    tried = {} if why_not else {name: worse(pairs, metric, seed, name) for name in _STATISTICS}
    statistic = min(tried, key=lambda name: _width(tried[name], confidence), default=_STATISTICS[0])
    found, limit = tried.get(statistic), limit_of(margin, metric)
    noise = Noise(metric, margin, limit, pairs, found, confidence, "", statistic)
    return replace(noise, why_reported=why_not or _why(noise, sides))


def _width(found: Estimate, confidence: float) -> float:
    low, high = found.interval(confidence)
    return high - low


def limit_of(margin: float, metric: Metric) -> float:
    return -math.log1p(-margin) if metric.higher_is_better else math.log1p(margin)


def worse(pairs: Pairs, metric: Metric, seed: int, statistic: Statistic) -> Estimate:
    """Candidate over baseline, inverted if needed so that more is worse."""
    if statistic == "median ratio":
        found = estimate([candidate - baseline for baseline, candidate in pairs.logs], seed)
    else:
        found = estimate_sides(pairs.logs, seed, metric.good)
    return found.negated if metric.higher_is_better else found


def _why(noise: Noise, sides: Sequence[Side]) -> str:
    """Why the metric is not gated, although it was measured."""
    if noise.extent > noise.limit:
        assert noise.found is not None
        low, high = noise.found.interval(noise.confidence)
        low, high = (-high, -low) if noise.metric.higher_is_better else (low, high)
        return (
            f"the baseline against itself {change(math.exp(low))} … {change(math.exp(high))}, "
            f"± {percent(noise.margin)} is required"
        )
    measured = [side.measured(noise.metric.regime) for side in sides if side.side == "A"]
    limited = sum(item is not None and client_limits(item) for item in measured)
    if noise.metric == THROUGHPUT and limited > len(measured) / 2:
        return "the client may be the limit: it can send less than twice as much"
    return ""


def wants_more(noises: Sequence[Noise], rounds: int) -> bool:
    """Whether more rounds of calibration than these may bring another metric within its margin."""
    if not any(noise.gated for noise in noises):
        return rounds < _TIMES * CALIBRATION
    can_narrow = any(noise.limit < noise.extent <= _CAN_NARROW * noise.limit for noise in noises)
    return can_narrow and rounds < _TIMES_IF_GATED * CALIBRATION


def rounds_for(noises: Sequence[Noise]) -> int:
    """The rounds that decide the gated metrics, before the second look: an interval narrows with the root of their
    number."""
    wanted = [2 * ROUNDS]
    for noise in noises:
        if noise.gated and noise.found:
            low, high = noise.found.interval(noise.confidence)
            wanted.append(math.ceil(noise.found.rounds * ((high - low) / (2 * _ROOM * noise.limit)) ** 2))
    return max(wanted)


def calibration_sides(sides: Sequence[Side]) -> list[Side]:
    """The sides of the rounds that compare the baseline with itself."""
    names: tuple[SideName, ...] = ("A", "A2")
    against_itself = {side.round for side in sides if side.side == "A2"}
    return [side for side in sides if side.round in against_itself and side.side in names]
