"""A chart of intervals (a forest plot): relative changes, what is allowed, and a second interval to compare with.

A change is a share: 0.1 is 10 % more. The axis has 0 and every margin on it; intervals beyond it end in an arrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from modelwright.charts.axes import Axis, draw_horizontal, round_step
from modelwright.charts.figure import Figure, Key, area_key, mark_key
from modelwright.charts.svg import WIDTH, Drawing, cross, fitted, marker, path_of, tag, text_width

Outcome = Literal["pass", "fail", "inconclusive", "reported"]
MINUS = "\N{MINUS SIGN}"
_LEFT, _RIGHT, _TOP = 14.0, WIDTH - 14, 8.0
_HEADING = 22.0  # the name of a group
_PITCH = 56.0  # a line of text, the interval, the second interval
_MIN, _MAX = -0.6, 1.0  # changes beyond these are drawn as arrows at the edge; the text has the number
_SHAPES: dict[str, int] = {"pass": 0, "inconclusive": 3, "reported": 1}  # circle, diamond, square; `fail` is a cross


@dataclass(frozen=True)
class Span:
    """An interval with what is in its middle. `title` is for a pointer."""

    low: float
    middle: float
    high: float
    title: str


@dataclass(frozen=True)
class IntervalRow:
    """One interval in its group. `text` stands at the right end of its name, `beside` is drawn below it."""

    group: str
    name: str
    text: str
    span: Span
    margin: float
    higher_is_better: bool
    outcome: Outcome
    allowed: str  # the margin in words
    beside: Span | None = None


@dataclass(frozen=True)
class IntervalTitles:
    """Of the chart, its axis and its caption; `beside` is what the second intervals are."""

    chart: str
    across: str
    caption: str
    beside: str
    spoken: str


def intervals(titles: IntervalTitles, rows: Sequence[IntervalRow]) -> Figure:
    """At least one row. Left of 0 % is less, right of it more; the shaded side is the worse one."""
    groups = list(dict.fromkeys(row.group for row in rows))
    bottom = _TOP + len(groups) * _HEADING + len(rows) * _PITCH
    drawing = Drawing(bottom + 40, f"{titles.chart}: {titles.spoken}")
    axis = _axis(rows)
    top = _TOP
    for group in groups:
        drawing.text(_LEFT, top + 14, fitted(group, _RIGHT - _LEFT), full=group, class_="t title")
        top += _HEADING
        for row in (row for row in rows if row.group == group):
            _zones(drawing, row, axis, top)
            drawing.line((axis(0.0), top + 20), (axis(0.0), top + _PITCH - 4), "zero")
            _row(drawing, row, axis, top)
            top += _PITCH
    draw_horizontal(drawing, axis, (_LEFT, _TOP, _RIGHT, bottom), titles.across)
    return Figure(titles.chart, drawing.svg(), titles.caption, _keys(rows, titles.beside))


def _axis(rows: Sequence[IntervalRow]) -> Axis:
    """Symmetric enough to show 0 and every margin on its worse side."""
    spans = [span for row in rows for span in (row.span, row.beside) if span]
    reach = max(row.margin for row in rows) * 1.6
    low = max(min([*(span.low for span in spans), -reach]), _MIN)
    high = min(max([*(span.high for span in spans), reach]), _MAX)
    step = round_step((high - low) / 6)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    count = round((high - low) / step)
    ticks = [(low + step * index, _percent(low + step * index)) for index in range(count + 1)]
    return Axis(low, high, _LEFT, _RIGHT, ticks)


def _percent(change: float) -> str:
    return "0 %" if abs(change) < 1e-9 else f"{MINUS if change < 0 else '+'}{abs(change) * 100:.3g} %"


def _zones(drawing: Drawing, row: IntervalRow, axis: Axis, top: float) -> None:
    """The margin as a band around 0, and beyond its worse end what is too much."""
    box_top, box_bottom = top + 20, top + _PITCH - 4
    edge = axis(-row.margin if row.higher_is_better else row.margin)
    drawing.rect((axis(-row.margin), box_top, axis(row.margin), box_bottom), "margin", row.allowed)
    beyond = (_LEFT, edge) if row.higher_is_better else (edge, _RIGHT)
    drawing.rect((beyond[0], box_top, beyond[1], box_bottom), "worse", row.allowed)
    drawing.line((edge, box_top), (edge, box_bottom), "limit")


def _row(drawing: Drawing, row: IntervalRow, axis: Axis, top: float) -> None:
    room = _RIGHT - _LEFT - text_width(row.text) - 10
    drawing.text(_LEFT, top + 14, fitted(row.name, room), full=row.name, class_="t strong halo")
    drawing.text(_RIGHT, top + 14, row.text, anchor="end", class_=f"t strong halo {row.outcome}")
    _span(drawing, row.span, axis, top + 30, f"iv {row.outcome}")
    drawing.add(_mark(row.outcome, (axis(row.span.middle), top + 30), row.span.title))
    if row.beside:
        _span(drawing, row.beside, axis, top + 44, "iv aa")
        middle = axis(row.beside.middle)
        drawing.line((middle, top + 40), (middle, top + 48), "iv aa")


def _span(drawing: Drawing, span: Span, axis: Axis, y: float, class_: str) -> None:
    left, right = axis(span.low), axis(span.high)
    drawing.line((left, y), (right, y), class_)
    for change, x, outward in ((span.low, left, -1), (span.high, right, 1)):
        if axis.low <= change <= axis.high:
            drawing.line((x, y - 4), (x, y + 4), class_)
        else:
            drawing.path([(x - 5 * outward, y - 4), (x, y), (x - 5 * outward, y + 4)], f"{class_} open")
    drawing.rect((min(left, right - 2), y - 6, max(right, left + 2), y + 6), "hover", span.title)


def _mark(outcome: Outcome, at: tuple[float, float], title: str = "") -> Markup:
    if outcome == "fail":
        return cross(at, title, "cross")
    return marker(at, _SHAPES[outcome], title, f"m {outcome}")


def _keys(rows: Sequence[IntervalRow], beside: str) -> list[Key]:
    keys = [mark_key(_mark(outcome, (7, 7)), outcome.upper()) for outcome in dict.fromkeys(row.outcome for row in rows)]
    keys += [area_key("margin", "within the margin"), area_key("worse", "worse than allowed")]
    line = tag("path", d=path_of([(0, 7), (14, 7)]) + path_of([(7, 3), (7, 11)]), class_="iv aa")
    return [*keys, mark_key(line, beside)] if beside else keys
