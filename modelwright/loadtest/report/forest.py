"""The A/B chart: each metric's ratio with its interval, the worsening that is allowed, the baseline against itself."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright import text as fmt
from modelwright.charts.figure import Figure
from modelwright.charts.intervals import IntervalRow, IntervalTitles, Outcome, Span, intervals
from modelwright.loadtest.document import Gate, MetricVerdict, MetricWord
from modelwright.loadtest.report import words

_OUTCOMES: Mapping[MetricWord, Outcome] = {
    "PASS": "pass",
    "FAIL": "fail",
    "INCONCLUSIVE": "inconclusive",
    "REPORTED": "reported",
}


def forest(gate: Gate) -> Figure | None:
    """One row a metric and regime; None where no metric has an interval."""
    if not gate.metrics:
        return None
    itself = {(item.interval.regime, item.interval.metric): _span(item) for item in gate.calibration}
    rows = [_row(item, itself.get((item.interval.regime, item.interval.metric))) for item in gate.metrics]
    titles = IntervalTitles(
        chart="Candidate against baseline",
        across="change from baseline to candidate",
        caption=_caption(gate),
        beside="A/A: baseline against itself" if gate.calibration else "",
        spoken="; ".join(f"{_name(item)} {words.change(item.interval.ratio)} {item.verdict}" for item in gate.metrics),
    )
    return intervals(titles, rows)


def _row(item: MetricVerdict, itself: Span | None) -> IntervalRow:
    return IntervalRow(
        group=f"At {item.interval.regime}",
        name=item.interval.metric,
        text=f"{words.change(item.interval.ratio)}  {item.verdict}",
        span=_span(item),
        margin=item.margin,
        higher_is_better=item.higher_is_better,
        outcome=_OUTCOMES[item.verdict],
        allowed=f"allowed: {fmt.percent(item.margin)} {'lower' if item.higher_is_better else 'higher'}",
        beside=itself,
    )


def _span(item: MetricVerdict) -> Span:
    at = item.interval
    changes = f"{words.change(at.ratio)} ({words.change(at.low)} to {words.change(at.high)})"
    values = f"{fmt.number(at.baseline)} → {fmt.number(at.candidate)} {at.unit}"
    return Span(at.low - 1, at.ratio - 1, at.high - 1, f"{_name(item)}: {changes}, {values}")


def _name(item: MetricVerdict) -> str:
    return f"{item.interval.metric}, {item.interval.regime}"


def _caption(gate: Gate) -> str:
    first = gate.metrics[0].interval
    return (
        f"The {fmt.percent(first.confidence)} interval over {fmt.counted(first.rounds, 'round')}, of the better quarter"
        " of each side's rounds or the median of their ratios: the calibration chooses. "
        "Wholly in the part that is worse than allowed, an interval fails; wholly outside it, it passes."
    )
