"""Checks the candidate against the absolute bounds of a model.yaml's `slo:`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from modelwright.loadtest.document import Threshold, Verdict
from modelwright.loadtest.gate.bootstrap import estimate
from modelwright.loadtest.gate.rounds import FIXED_P50, FIXED_P99, THROUGHPUT, Metric, Side, too_few, values
from modelwright.project.spec import Slo
from modelwright.text import number, percent


def thresholds(sides: Sequence[Side], slo: Slo, seed: int, confidence: float) -> list[tuple[Threshold, str]]:
    """Each given bound, with the reason if it does not hold. `measured` is the median over rounds.

    As for a metric: FAIL or PASS if the interval over rounds is wholly on one side of the bound.
    """
    bounds = (
        ("p50_ms", FIXED_P50, slo.p50_ms),
        ("p99_ms", FIXED_P99, slo.p99_ms),
        ("throughput_min", THROUGHPUT, slo.throughput_min),
    )
    return [
        _threshold(sides, name, metric, bound, seed, confidence) for name, metric, bound in bounds if bound is not None
    ]


def _threshold(
    sides: Sequence[Side], name: str, metric: Metric, bound: float, seed: int, confidence: float
) -> tuple[Threshold, str]:
    found, missing = values(sides, metric)
    why_not = too_few(len(found), missing, confidence)
    if why_not:
        unknown = Threshold(name=name, bound=bound, measured=None, verdict="INCONCLUSIVE")
        return unknown, f"slo.{name} was not checked: {why_not}"
    low, high = map(math.exp, estimate([math.log(value) for value in found], seed).interval(confidence))
    verdict = _verdict(*((-high, -low, -bound) if metric.higher_is_better else (low, high, bound)))
    measured = median(found)
    reason = (
        f"slo.{name}: {number(measured)} {metric.unit} at {metric.regime} "
        f"({percent(confidence)} interval {number(low)} … {number(high)}), "
        f"at {'least' if metric.higher_is_better else 'most'} {number(bound)} is required"
    )
    return Threshold(name=name, bound=bound, measured=measured, verdict=verdict), "" if verdict == "PASS" else reason


def _verdict(low: float, high: float, most: float) -> Verdict:
    return "FAIL" if low > most else "PASS" if high <= most else "INCONCLUSIVE"
