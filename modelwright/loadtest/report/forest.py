"""The A/B chart: each metric's ratio with its interval, the worsening that is allowed, the baseline against itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from modelwright.charts.axes import Axis, draw_horizontal, round_step
from modelwright.charts.svg import WIDTH, Drawing, cross, fitted, marker, path_of, tag, text_width
from modelwright.loadtest.document import Gate, Interval, MetricVerdict
from modelwright.loadtest.report import words
from modelwright.loadtest.report.blocks import Figure, Key, area_key, mark_key

_LEFT, _RIGHT, _TOP = 14.0, WIDTH - 14, 8.0
_HEADING = 22.0  # the name of a regime
_PITCH = 56.0  # a line of text, the interval, the calibration's interval
_LEAST, _MOST = -0.6, 1.0  # changes beyond these are drawn as arrows at the edge; the text has the number


def forest(gate: Gate) -> Figure | None:
    """One row a metric and regime. Left of 0 % is less, right of it more; the shaded side is the worse one."""
    if not gate.metrics:
        return None
    regimes = list(dict.fromkeys(item.interval.regime for item in gate.metrics))
    bottom = _TOP + len(regimes) * _HEADING + len(gate.metrics) * _PITCH
    spoken = "; ".join(f"{name_of(item.interval)} {change_of(item)} {item.verdict}" for item in gate.metrics)
    drawing = Drawing(bottom + 40, f"Candidate against baseline: {spoken}")
    axis = _axis([*gate.metrics, *gate.calibration])
    top = _TOP
    for regime in regimes:
        top = _regime(drawing, regime, gate, axis, top)
    draw_horizontal(drawing, axis, (_LEFT, _TOP, _RIGHT, bottom), "change from baseline to candidate")
    return Figure("Candidate against baseline", drawing.svg(), _caption(gate), _keys(gate))


def _regime(drawing: Drawing, regime: str, gate: Gate, axis: Axis, top: float) -> float:
    """The rows of one regime below its name; returns where they end."""
    beside = {item.interval.metric: item for item in gate.calibration if item.interval.regime == regime}
    title = f"At {regime}"
    drawing.text(_LEFT, top + 14, fitted(title, _RIGHT - _LEFT), full=title, class_="t title")
    top += _HEADING
    for item in gate.metrics:
        if item.interval.regime == regime:
            _zones(drawing, item, axis, top)
            drawing.line((axis(0.0), top + 20), (axis(0.0), top + _PITCH - 4), "zero")
            _row(drawing, item, beside.get(item.interval.metric), axis, top)
            top += _PITCH
    return top


def name_of(interval: Interval) -> str:
    return f"{interval.metric}, {interval.regime}"


def change_of(item: MetricVerdict) -> str:
    return words.change(item.interval.ratio)


def _axis(items: Sequence[MetricVerdict]) -> Axis:
    """Changes as shares, symmetric enough to show 0 and every margin on its worse side."""
    reach = [item.margin * 1.6 for item in items]
    low = min([*(item.interval.low - 1 for item in items), *(-part for part in reach)])
    high = max([*(item.interval.high - 1 for item in items), *reach])
    low, high = max(low, _LEAST), min(high, _MOST)
    step = round_step((high - low) / 6)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((high - low) / step)
    ticks = [(low + step * index, _percent(low + step * index)) for index in range(count + 1)]
    return Axis(low, high, _LEFT, _RIGHT, ticks)


def _percent(change: float) -> str:
    text = f"{abs(change) * 100:.3g}"
    return "0 %" if abs(change) < 1e-9 else f"{words.MINUS if change < 0 else '+'}{text} %"


def _zones(drawing: Drawing, item: MetricVerdict, axis: Axis, top: float) -> None:
    """The margin as a band around 0, and beyond its worse end what is too much."""
    box_top, box_bottom = top + 20, top + _PITCH - 4
    edge = axis(-item.margin if item.higher_is_better else item.margin)
    drawing.rect((axis(-item.margin), box_top, axis(item.margin), box_bottom), "margin", _margin_title(item))
    beyond = (_LEFT, edge) if item.higher_is_better else (edge, _RIGHT)
    drawing.rect((beyond[0], box_top, beyond[1], box_bottom), "worse", _margin_title(item))
    drawing.line((edge, box_top), (edge, box_bottom), "limit")


def _row(drawing: Drawing, item: MetricVerdict, beside: MetricVerdict | None, axis: Axis, top: float) -> None:
    change = f"{change_of(item)}  {item.verdict}"
    room = _RIGHT - _LEFT - text_width(change) - 10
    name = item.interval.metric
    drawing.text(_LEFT, top + 14, fitted(name, room), full=name, class_="t strong halo")
    drawing.text(_RIGHT, top + 14, change, anchor="end", class_=f"t strong halo {item.verdict.lower()}")
    _interval(drawing, item, axis, top + 30, f"iv {item.verdict.lower()}")
    shape(drawing, item.verdict, (axis(item.interval.ratio - 1), top + 30), _title(item))
    if beside:
        _interval(drawing, beside, axis, top + 44, "iv aa")
        drawing.line((axis(beside.interval.ratio - 1), top + 40), (axis(beside.interval.ratio - 1), top + 48), "iv aa")


def _interval(drawing: Drawing, item: MetricVerdict, axis: Axis, y: float, class_: str) -> None:
    low, high = item.interval.low - 1, item.interval.high - 1
    left, right = axis(low), axis(high)
    drawing.line((left, y), (right, y), class_)
    for change, x, outward in ((low, left, -1), (high, right, 1)):
        if axis.low <= change <= axis.high:
            drawing.line((x, y - 4), (x, y + 4), class_)
        else:
            drawing.path([(x - 5 * outward, y - 4), (x, y), (x - 5 * outward, y + 4)], f"{class_} open")
    drawing.rect((min(left, right - 2), y - 6, max(right, left + 2), y + 6), "hover", _title(item))


_SHAPES = {"PASS": 0, "INCONCLUSIVE": 3}  # circle, diamond; FAIL is a cross


def shape(drawing: Drawing, verdict: str, at: tuple[float, float], title: str) -> None:
    drawing.add(_shape(verdict, at, title))


def _shape(verdict: str, at: tuple[float, float], title: str = "") -> Markup:
    if verdict == "FAIL":
        return cross(at, title, "cross")
    return marker(at, _SHAPES[verdict], title, f"m {verdict.lower()}")


def _keys(gate: Gate) -> list[Key]:
    shown = dict.fromkeys(item.verdict for item in gate.metrics)
    keys = [mark_key(_shape(verdict, (7, 7)), verdict) for verdict in shown]
    keys += [area_key("margin", "within the margin"), area_key("worse", "worse than allowed")]
    line = tag("path", d=path_of([(0, 7), (14, 7)]) + path_of([(7, 3), (7, 11)]), class_="iv aa")
    return [*keys, mark_key(line, "A/A: baseline against itself")] if gate.calibration else keys


def _caption(gate: Gate) -> str:
    first = gate.metrics[0].interval
    return (
        f"Median of {words.count(first.rounds, 'round')} and the {words.percent(first.confidence)} interval. "
        "Wholly in the part that is worse than allowed, an interval fails; wholly outside it, it passes."
    )


def _title(item: MetricVerdict) -> str:
    at = item.interval
    span = f"{words.change(at.low)} to {words.change(at.high)}"
    values = f"{words.number(at.baseline)} → {words.number(at.candidate)} {at.unit}"
    return f"{name_of(at)}: {words.change(at.ratio)} ({span}), {values}"


def _margin_title(item: MetricVerdict) -> str:
    return f"allowed: {words.percent(item.margin)} {'lower' if item.higher_is_better else 'higher'}"
