"""The performance gate: PASS, FAIL or INCONCLUSIVE, from what the rounds measured. Nothing is measured here.

The rules are fixed before anything is measured:

- **Rounds.** ROUNDS; a model that is INCONCLUSIVE gets the same number again, once, if more rounds can help
  (`wants_extension`). Two looks at the data are two chances of a false alarm, so each gets half: intervals of 97.5 %,
  95 % over both. A model that was decided at the first look stays decided (`settled`).
- **A metric** is judged by the interval of candidate / baseline over rounds (bootstrap.py) against its margin, the
  allowed worsening. FAIL: the whole interval is beyond the margin, and Holm's correction over all models and metrics of
  this gate also rejects "no worse than the margin". PASS: the whole interval is on the good side of the margin,
  improvements included. Otherwise INCONCLUSIVE.
- **Calibration.** The baseline against itself, in the same rounds. If that interval is not wholly within ± margin, this
  machine is too noisy to gate the metric: INCONCLUSIVE. A change that is larger than the machine's noise still counts:
  FAIL if the interval is also wholly beyond the calibration's, PASS if it is wholly beyond it on the good side. Both
  require more than on a quiet machine, so neither makes false alarms likelier.
- **Rounds that do not count**: not measured to their end, an invalid client, too few requests for a percentile. A
  metric needs four fifths of the rounds, and `bootstrap.rounds_needed`; else it has no interval and is INCONCLUSIVE.
- **Failed requests**: failures.py. **Thresholds** of model.yaml bind the candidate by its own interval over rounds.
- **A model** fails if anything of it fails, is INCONCLUSIVE if anything is, and passes otherwise. The same holds for
  all models together.

Simulated: final verdicts on 100 gates each, by the noise of one side in one round (the standard deviation of its
logarithm; p99 has twice as much, compute 0.7 times) and the share of measurements that something else slows by 15 %
or so. tests/loadtest/test_gate.py repeats some of it.

    noise, slowed                              1 %, none   2 %, 5 %   3 %, 5 %   4 %, 8 %
    the same version                 PASS          100         98         54          6
                                     FAIL            0          0          0          0
    3 % worse in everything          FAIL            0          0          0          0
    10 % more compute, throughput    FAIL          100        100         98         88
      6 % lower, p50 13 % higher
    10 % more compute, hardly felt   FAIL          100         98         93         72
    20 % less throughput, more queue FAIL          100        100        100        100

The rest is INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from modelwright.loadtest.document import Gate, Interval, MetricVerdict, Verdict
from modelwright.loadtest.gate.attribution import attribute
from modelwright.loadtest.gate.bootstrap import Estimate, estimate, holm
from modelwright.loadtest.gate.failures import failing
from modelwright.loadtest.gate.rounds import (
    FIXED,
    METRICS,
    SATURATION,
    Metric,
    Pairs,
    Side,
    as_rounds,
    compared,
    too_few,
)
from modelwright.loadtest.gate.thresholds import thresholds
from modelwright.project.spec import Slo
from modelwright.text import change, number, percent

ROUNDS = 10
LOOK_CONFIDENCE = 0.975  # of each of two looks
EXIT_CODES: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
_ORDER: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")


@dataclass(frozen=True)
class Case:
    """One model's rounds and its objectives. `baseline` and `candidate` name the two: "version 3"."""

    model: str
    baseline: str
    candidate: str
    sides: Sequence[Side]
    slo: Slo = field(default_factory=Slo)  # margins and bounds
    differences: Sequence[str] = ()
    metrics: Sequence[Metric] = METRICS


@dataclass(frozen=True)
class _Evidence:
    """One metric of one case. `worse`: candidate over baseline, inverted if needed so that more is worse."""

    metric: Metric
    pairs: Pairs
    limit: float  # the margin, a logarithm
    margin: float
    worse: Estimate | None
    calibration: Estimate | None
    calibration_pairs: Pairs
    why_not: str  # why there is no estimate


@dataclass(frozen=True)
class _Ruling:
    """A verdict and its reason."""

    verdict: Verdict
    reason: str = ""


def judge(cases: Sequence[Case], seed: int, confidence: float = LOOK_CONFIDENCE) -> list[Gate]:
    """The verdict on each model. All models of a gate are judged together: Holm's correction is over all of them.

    `confidence` is that of this look. The same seed gives the same intervals.
    """
    evidence = [[_examine(case, metric, seed, confidence) for metric in case.metrics] for case in cases]
    tested = [item for items in evidence for item in items if item.worse]
    p_values = [item.worse.p_value(item.limit) for item in tested if item.worse]
    rejected = dict(zip(map(id, tested), holm(p_values, 1 - confidence), strict=True))
    return [
        _gate(case, [(item, rejected.get(id(item), False)) for item in items], seed, confidence, len(tested))
        for case, items in zip(cases, evidence, strict=True)
    ]


def overall(gates: Sequence[Gate]) -> Verdict:
    """The worst verdict; INCONCLUSIVE where nothing was compared."""
    verdicts = {gate.verdict for gate in gates}
    return next((verdict for verdict in _ORDER if verdict in verdicts), "INCONCLUSIVE")


def wants_extension(gates: Sequence[Gate]) -> list[str]:
    """The models to measure the same number of rounds again: INCONCLUSIVE because an interval is too wide."""

    def can_narrow(gate: Gate) -> bool:
        verdicts = [item.verdict for item in gate.metrics]
        verdicts += [item.verdict for item in gate.thresholds if item.measured is not None]
        return "INCONCLUSIVE" in verdicts

    return [gate.model for gate in gates if gate.verdict == "INCONCLUSIVE" and can_narrow(gate)]


def settled(first: Sequence[Gate], second: Sequence[Gate]) -> list[Gate]:
    """What holds after a second look over all models: its verdict on those that were extended, else the first."""
    extended = wants_extension(first)
    again = {gate.model: gate for gate in second}
    return [again[gate.model] if gate.model in extended and gate.model in again else gate for gate in first]


# --- one metric -------------------------------------------------------------------------------------------------------


def _examine(case: Case, metric: Metric, seed: int, confidence: float) -> _Evidence:
    margin = float(getattr(case.slo.margins, metric.name))
    pairs = compared(case.sides, metric)
    against_itself = compared(case.sides, metric, baselines=("A",), candidate="A2")
    why_not = too_few(len(pairs.pairs), pairs.missing, confidence)
    enough = not too_few(len(against_itself.pairs), against_itself.missing, confidence)
    return _Evidence(
        metric=metric,
        pairs=pairs,
        limit=-math.log1p(-margin) if metric.higher_is_better else math.log1p(margin),
        margin=margin,
        worse=None if why_not else _turned(estimate(pairs.log_ratios, seed), metric),
        calibration=_turned(estimate(against_itself.log_ratios, seed), metric) if enough else None,
        calibration_pairs=against_itself,
        why_not=why_not,
    )


def _turned(found: Estimate, metric: Metric) -> Estimate:
    return found.negated if metric.higher_is_better else found


def _rule(item: _Evidence, rejected: bool, confidence: float, tests: int) -> _Ruling:
    """The decision on one metric."""
    name = f"{item.metric.name} at {item.metric.regime}"
    if item.worse is None:
        return _Ruling("INCONCLUSIVE", f"{name} was not gated: {item.why_not}")
    low, high = item.worse.interval(confidence)
    shown = f"{name}: {_told(item, confidence)}"
    itself = _extent(item, confidence)
    if low > max(item.limit, itself) and rejected:
        return _Ruling("FAIL", f"{shown}, {_allowed(item)} is allowed")
    if high < (item.limit if itself <= item.limit else -itself):
        return _Ruling("PASS")
    if itself > item.limit:
        return _Ruling("INCONCLUSIVE", f"{shown}; {_noise(item, confidence)}")
    if low > item.limit:
        why = f"beyond {_allowed(item)}, but not significant among {tests} comparisons (Holm)"
        return _Ruling("INCONCLUSIVE", f"{shown}: {why}")
    return _Ruling("INCONCLUSIVE", f"{shown}: the interval contains the margin, {_allowed(item)}")


def _extent(item: _Evidence, confidence: float) -> float:
    """How far the baseline may be from itself, a logarithm; infinite if it is not known."""
    return max(map(abs, item.calibration.interval(confidence))) if item.calibration else math.inf


def _noise(item: _Evidence, confidence: float) -> str:
    if item.calibration is None:
        return "too few rounds compare the baseline with itself to know the noise of this machine"
    low, high = _ratios(item.calibration, item.metric, confidence)
    return (
        f"this machine is too noisy to gate it: the baseline against itself {change(low)} … {change(high)}, "
        f"± {percent(item.margin)} is required"
    )


def _told(item: _Evidence, confidence: float) -> str:
    interval = _interval(item.metric, item.pairs, item.worse, confidence)
    return (
        f"{change(interval.ratio)} ({percent(confidence)} interval {change(interval.low)} … {change(interval.high)}; "
        f"medians {number(interval.baseline)} → {number(interval.candidate)} {interval.unit})"
    )


def _allowed(item: _Evidence) -> str:
    return f"{'-' if item.metric.higher_is_better else '+'}{percent(item.margin)}"


def _ratios(found: Estimate, metric: Metric, confidence: float) -> tuple[float, float]:
    low, high = _turned(found, metric).interval(confidence)
    return math.exp(low), math.exp(high)


def _interval(metric: Metric, pairs: Pairs, worse: Estimate | None, confidence: float) -> Interval:
    assert worse is not None
    low, high = _ratios(worse, metric, confidence)
    return Interval(
        metric=metric.name,
        regime=metric.regime,
        ratio=math.exp(_turned(worse, metric).median),
        low=low,
        high=high,
        confidence=confidence,
        baseline=median(pair.baseline for pair in pairs.pairs),
        candidate=median(pair.candidate for pair in pairs.pairs),
        unit=metric.unit,
        rounds=worse.rounds,
    )


# --- one model --------------------------------------------------------------------------------------------------------


def _gate(case: Case, items: Sequence[tuple[_Evidence, bool]], seed: int, confidence: float, tests: int) -> Gate:
    failed = failing(case.sides)
    rulings = [_Ruling("FAIL", failed.reason)] if failed.reason else []
    by_metric = [(item, rejected, _rule(item, rejected, confidence, tests)) for item, rejected in items]
    rulings += [ruling for *_, ruling in by_metric]
    bounds = thresholds(case.sides, case.slo, seed, confidence)
    rulings += [_Ruling(threshold.verdict, reason) for threshold, reason in bounds]
    verdict = next((verdict for verdict in _ORDER if any(ruling.verdict == verdict for ruling in rulings)), "PASS")
    reasons = [ruling.reason for kind in _ORDER for ruling in rulings if ruling.verdict == kind and ruling.reason]
    failing_in = {item.metric.regime for item, _, ruling in by_metric if ruling.verdict == "FAIL"}
    return Gate(
        model=case.model,
        baseline=case.baseline,
        candidate=case.candidate,
        verdict=verdict,
        reasons=[*dict.fromkeys(reasons), *failed.notes],
        metrics=[_metric(item, rejected, ruling, confidence) for item, rejected, ruling in by_metric if item.worse],
        calibration=[_calibration(item, confidence) for item, *_ in by_metric if item.calibration],
        thresholds=[threshold for threshold, _ in bounds],
        # If throughput fell, the cause is looked for at saturation. At the fixed load the same loss is mixed with other
        # effects: a server that is nearer to its limit forms other batches and queues.
        attribution=attribute(
            case.sides,
            SATURATION if SATURATION in failing_in else FIXED,
            seed,
            bool(failing_in),
            failed.reason,
            case.differences,
        ),
        rounds=as_rounds(case.sides),
        seed=seed,
    )


def _metric(item: _Evidence, rejected: bool, ruling: _Ruling, confidence: float) -> MetricVerdict:
    assert item.worse is not None
    return MetricVerdict(
        interval=_interval(item.metric, item.pairs, item.worse, confidence),
        margin=item.margin,
        higher_is_better=item.metric.higher_is_better,
        verdict=ruling.verdict,
        p_value=item.worse.p_value(item.limit),
        rejected=rejected,
    )


def _calibration(item: _Evidence, confidence: float) -> MetricVerdict:
    """PASS: the baseline is within ± margin of itself."""
    return MetricVerdict(
        interval=_interval(item.metric, item.calibration_pairs, item.calibration, confidence),
        margin=item.margin,
        higher_is_better=item.metric.higher_is_better,
        verdict="PASS" if _extent(item, confidence) <= item.limit else "INCONCLUSIVE",
        p_value=None,
        rejected=False,
    )
