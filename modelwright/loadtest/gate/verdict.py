"""The performance gate: PASS, FAIL or INCONCLUSIVE, from what the rounds measured. Nothing is measured here.

The rules are fixed before anything is measured:

- **Calibration** (calibration.py). The first rounds compare the baseline with itself. They decide which metrics are
  gated, those that this machine can decide at the margin, and how many rounds the comparison may get. The other
  metrics are reported.
- **Looks.** The first is after ten rounds of comparison. A model that is INCONCLUSIVE then gets as many rounds as the
  calibration says, once, if more rounds can help (`wants_extension`) and there is time. Two looks at the data are two
  chances of a false alarm, so each gets half: intervals of 97.5 %, 95 % over both. A model that was decided at the
  first look stays decided (`settled`).
- **A gated metric** is judged by the interval of candidate / baseline (bootstrap.py) against its margin, the allowed
  worsening. FAIL: the whole interval is beyond the margin, and Holm's correction over all models and metrics of this
  gate also rejects "no worse than the margin". PASS: the whole interval is on the good side of the margin,
  improvements included. Otherwise INCONCLUSIVE.
- **A reported metric** never passes a version, and can stop one. FAIL: the interval is wholly beyond the margin and the
  machine's noise together, also by Holm's correction. INCONCLUSIVE: the interval excludes "no worse" (at a confidence
  that is shared among the reported metrics), or it reaches beyond four margins, so that a large loss could hide in the
  noise. Otherwise it decides nothing. Compute, a mean that a neighbour moves most, can only fail a version: what it
  would tell is in the p50, too. So whatever is passed has not become worse by more than the margin in the gated
  metrics, and not by more than four margins in the others.
- **No metric is gated**: INCONCLUSIVE, unless something fails.
- **Rounds that do not count**: not measured to their end, a client that sent late or not at all, too few requests for a
  percentile. A metric needs four fifths of the rounds, and `bootstrap.rounds_needed`; else it has no interval.
- **Failed requests**: failures.py. **Thresholds** of model.yaml bind the candidate by its own interval over rounds.
- **A model** fails if anything of it fails, is INCONCLUSIVE if anything is, and passes otherwise. The same holds for
  all models together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelwright.loadtest.document import Gate, Interval, MetricVerdict, MetricWord, Verdict
from modelwright.loadtest.gate.attribution import attribute
from modelwright.loadtest.gate.bootstrap import Estimate, holm
from modelwright.loadtest.gate.calibration import Noise, Statistic, calibration_sides, limit_of, noise_of, worse
from modelwright.loadtest.gate.failures import failing
from modelwright.loadtest.gate.rounds import (
    METRICS,
    SATURATION,
    SINGLE,
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

LOOK_CONFIDENCE = 0.975  # of each of two looks
EXIT_CODES: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
_ORDER: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
_LARGE = 4  # margins: a loss that a reported metric must exclude


@dataclass(frozen=True)
class Case:
    """One model's rounds and its objectives. `baseline` and `candidate` name the two: "version 3"."""

    model: str
    baseline: str
    candidate: str
    sides: Sequence[Side]
    slo: Slo = field(default_factory=Slo)  # margins and bounds
    differences: Sequence[str] = ()
    metrics: Sequence[Metric] = METRICS  # those whose regime is measured
    notes: Sequence[str] = ()  # what a reader should know of the rounds


@dataclass(frozen=True)
class _Evidence:
    """One metric of one case. `worse`: candidate over baseline, inverted if needed so that more is worse."""

    metric: Metric
    noise: Noise
    pairs: Pairs
    worse: Estimate | None
    why_not: str  # why there is no estimate


@dataclass(frozen=True)
class _Look:
    """What a metric's decision needs beside its evidence. `reported`: of these intervals, over all models."""

    confidence: float
    tests: int
    reported: int


@dataclass(frozen=True)
class _Ruling:
    """A verdict and its reason."""

    verdict: MetricWord
    reason: str = ""


def judge(cases: Sequence[Case], seed: int, confidence: float = LOOK_CONFIDENCE) -> list[Gate]:
    """The verdict on each model. All models of a gate are judged together: Holm's correction is over all of them.

    `confidence` is that of this look. The same seed gives the same intervals.
    """
    evidence = [[_examine(case, metric, seed, confidence) for metric in case.metrics] for case in cases]
    tested = [item for items in evidence for item in items if item.worse]
    p_values = [item.worse.p_value(item.noise.limit) for item in tested if item.worse]
    rejected = dict(zip(map(id, tested), holm(p_values, 1 - confidence), strict=True))
    look = _Look(confidence, len(tested), sum(not item.noise.gated for item in tested))
    return [
        _gate(case, [(item, rejected.get(id(item), False)) for item in items], seed, look)
        for case, items in zip(cases, evidence, strict=True)
    ]


def overall(gates: Sequence[Gate]) -> Verdict:
    """The worst verdict; INCONCLUSIVE where nothing was compared."""
    verdicts = {gate.verdict for gate in gates}
    return next((verdict for verdict in _ORDER if verdict in verdicts), "INCONCLUSIVE")


def wants_extension(gates: Sequence[Gate]) -> list[str]:
    """The models to measure more rounds of: INCONCLUSIVE because an interval is too wide."""

    def can_narrow(gate: Gate) -> bool:
        verdicts: list[str] = [item.verdict for item in gate.metrics]
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
    why_not = too_few(len(pairs.pairs), pairs.missing, confidence)
    noise = noise_of(calibration_sides(case.sides), metric, margin, seed, confidence)
    found = None if why_not else worse(pairs, metric, seed, noise.statistic)
    return _Evidence(metric, noise, pairs, found, why_not)


def _rule(item: _Evidence, rejected: bool, look: _Look) -> _Ruling:
    """The decision on one metric."""
    if item.worse is None:
        return _not_compared(item)
    shown = f"{_name(item)}: {_told(item, look.confidence)}"
    low, high = item.worse.interval(look.confidence)
    if not item.noise.gated:
        return _rule_reported(item, item.worse, shown, rejected, look)
    if low > item.noise.limit and rejected:
        return _Ruling("FAIL", f"{shown}, {_allowed(item)} is allowed")
    if high < item.noise.limit:
        return _Ruling("PASS")
    if low > item.noise.limit:
        why = f"beyond {_allowed(item)}, but not significant among {look.tests} comparisons (Holm)"
        return _Ruling("INCONCLUSIVE", f"{shown}: {why}")
    return _Ruling("INCONCLUSIVE", f"{shown}: the interval contains the margin, {_allowed(item)}")


def _rule_reported(item: _Evidence, found: Estimate, shown: str, rejected: bool, look: _Look) -> _Ruling:
    noise = item.noise
    low, high = found.interval(look.confidence)
    if low > noise.limit + noise.extent and rejected:
        return _Ruling("FAIL", f"{shown}: beyond {_allowed(item)} and this machine's noise together")
    if item.metric.explains:
        return _Ruling("REPORTED", f"{_name(item)} is not gated: {noise.why_reported}")
    surely, _ = found.interval(1 - (1 - look.confidence) / look.reported)
    if surely > 0:
        why = f"it points to a worse version, and is not gated: {noise.why_reported}"
        return _Ruling("INCONCLUSIVE", f"{shown}: {why}")
    if high > limit_of(min(_LARGE * noise.margin, 0.9), item.metric):
        why = f"a large loss may hide in the noise, and it is not gated: {noise.why_reported}"
        return _Ruling("INCONCLUSIVE", f"{shown}: {why}")
    return _Ruling("REPORTED", f"{_name(item)} is not gated: {noise.why_reported}")


def _not_compared(item: _Evidence) -> _Ruling:
    """A metric that the calibration could not measure either is only noted."""
    if item.noise.found is None:
        return _Ruling("REPORTED", f"{_name(item)} was not measured: {item.noise.why_reported}")
    return _Ruling("INCONCLUSIVE", f"{_name(item)} was not compared: {item.why_not}")


def _name(item: _Evidence) -> str:
    return f"{item.metric.name} {'with' if item.metric.regime == SINGLE else 'at'} {item.metric.regime}"


def _told(item: _Evidence, confidence: float) -> str:
    interval = _interval(item.metric, item.pairs, item.worse, confidence, item.noise.statistic)
    return (
        f"{change(interval.ratio)} ({percent(confidence)} interval {change(interval.low)} … {change(interval.high)}; "
        f"{number(interval.baseline)} → {number(interval.candidate)} {interval.unit})"
    )


def _allowed(item: _Evidence) -> str:
    return f"{'-' if item.metric.higher_is_better else '+'}{percent(item.noise.margin)}"


def _interval(
    metric: Metric, pairs: Pairs, found: Estimate | None, confidence: float, statistic: Statistic
) -> Interval:
    import numpy as np

    assert found is not None
    ratio = found.negated if metric.higher_is_better else found
    low, high = ratio.interval(confidence)
    shown = 0.5 if statistic == "median ratio" else metric.good
    baseline, candidate = np.quantile(pairs.logs, shown, axis=0)
    return Interval(
        metric=metric.name,
        regime=metric.regime,
        ratio=math.exp(ratio.value),
        low=math.exp(low),
        high=math.exp(high),
        confidence=confidence,
        baseline=math.exp(baseline),
        candidate=math.exp(candidate),
        unit=metric.unit,
        rounds=found.rounds,
    )


# --- one model --------------------------------------------------------------------------------------------------------


def _gate(case: Case, items: Sequence[tuple[_Evidence, bool]], seed: int, look: _Look) -> Gate:
    failed = failing(case.sides)
    rulings = [_Ruling("FAIL", failed.reason)] if failed.reason else []
    by_metric = [(item, rejected, _rule(item, rejected, look)) for item, rejected in items]
    rulings += [ruling for *_, ruling in by_metric]
    bounds = thresholds(case.sides, case.slo, seed, look.confidence)
    rulings += [_Ruling(threshold.verdict, reason) for threshold, reason in bounds]
    if not any(item.noise.gated for item, _ in items):
        rulings.append(_Ruling("INCONCLUSIVE", "no metric is gated: this machine is too noisy to decide one"))
    verdict = next((verdict for verdict in _ORDER if any(ruling.verdict == verdict for ruling in rulings)), "PASS")
    words: tuple[MetricWord, ...] = (*_ORDER, "REPORTED")
    reasons = [ruling.reason for word in words for ruling in rulings if ruling.verdict == word and ruling.reason]
    failing_in = [item.metric.regime for item, _, ruling in by_metric if ruling.verdict == "FAIL"]
    return Gate(
        model=case.model,
        baseline=case.baseline,
        candidate=case.candidate,
        verdict=verdict,
        reasons=[*dict.fromkeys(reasons), *failed.notes, *case.notes],
        metrics=[_metric(item, rejected, ruling, look) for item, rejected, ruling in by_metric if item.worse],
        calibration=[_calibration(item.noise, look) for item, *_ in by_metric if item.noise.found],
        thresholds=[threshold for threshold, _ in bounds],
        attribution=attribute(
            case.sides, _regime_of_cause(case, failing_in), seed, bool(failing_in), failed.reason, case.differences
        ),
        rounds=as_rounds(case.sides),
        seed=seed,
    )


def _regime_of_cause(case: Case, failing_in: Sequence[str]) -> str:
    """Where the cause is looked for: at saturation if throughput or CPU time failed there.

    At a fixed load the same loss is mixed with other effects: a server that is nearer to its limit forms other batches
    and queues.
    """
    regimes = list(dict.fromkeys(metric.regime for metric in case.metrics)) or [SATURATION]
    preferred = [SATURATION, *failing_in] if SATURATION in failing_in else [*failing_in, *reversed(regimes)]
    return preferred[0]


def _metric(item: _Evidence, rejected: bool, ruling: _Ruling, look: _Look) -> MetricVerdict:
    assert item.worse is not None
    return MetricVerdict(
        interval=_interval(item.metric, item.pairs, item.worse, look.confidence, item.noise.statistic),
        margin=item.noise.margin,
        higher_is_better=item.metric.higher_is_better,
        verdict=ruling.verdict,
        p_value=item.worse.p_value(item.noise.limit),
        rejected=rejected,
        gated=item.noise.gated,
        why_reported=item.noise.why_reported,
    )


def _calibration(noise: Noise, look: _Look) -> MetricVerdict:
    """PASS: the metric is gated."""
    return MetricVerdict(
        interval=_interval(noise.metric, noise.pairs, noise.found, look.confidence, noise.statistic),
        margin=noise.margin,
        higher_is_better=noise.metric.higher_is_better,
        verdict="PASS" if noise.gated else "REPORTED",
        p_value=None,
        rejected=False,
        gated=noise.gated,
        why_reported=noise.why_reported,
    )
