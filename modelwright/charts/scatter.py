"""A chart of points by two measures, each with an interval across: how good against how fast, for example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelwright import text as fmt
from modelwright.charts.axes import (
    Axis,
    draw_horizontal,
    draw_vertical,
    gutter,
    linear_or_logarithmic,
    round_step,
    tick_text,
)
from modelwright.charts.figure import Figure, mark_key
from modelwright.charts.svg import SERIES, WIDTH, Drawing, fitted, marker

_TOP, _RIGHT = 30.0, WIDTH - 20
_HEIGHT = 270.0
_BOTTOM = _HEIGHT - 44
_TICKS = 4
_SPOKEN = 6


@dataclass(frozen=True)
class ScatterPoint:
    """One point, `low` to `high` its interval across; a pointer shows `title`.

    `series` says which mark it has, so that it is the same one in every chart.
    """

    name: str
    x: float
    low: float
    high: float
    y: float
    title: str
    series: int


@dataclass(frozen=True)
class ScatterTitles:
    """Of a chart and its axes. `reference` names the vertical line at `at`."""

    chart: str
    across: str
    up: str
    caption: str = ""
    at: float | None = None


def scatter(titles: ScatterTitles, points: Sequence[ScatterPoint], *, from_zero: bool = False) -> Figure | None:
    """A mark and a legend entry for each point; the vertical axis shows differences, `from_zero` lengths.

    None without points.
    """
    if not points:
        return None
    drawing = Drawing(_HEIGHT, f"{titles.chart}: {'; '.join(map(_spoken, points[:_SPOKEN]))}")
    values = [point.y for point in points]
    vertical = linear_or_logarithmic(values, _BOTTOM, _TOP) if from_zero else _around(values, _BOTTOM, _TOP)
    area = (gutter(vertical), _TOP, _RIGHT, _BOTTOM)
    reach = [value for point in points for value in (point.high, point.x)]
    across = linear_or_logarithmic([*reach, *([titles.at] if titles.at else [])], area[0], area[2])
    draw_vertical(drawing, vertical, area, titles.up)
    draw_horizontal(drawing, across, area, titles.across)
    if titles.at is not None:
        drawing.line((across(titles.at), area[1]), (across(titles.at), area[3]), "zero")
    for point in points:
        y = vertical(point.y)
        drawing.line((across(point.low), y), (across(point.high), y), f"l s{point.series % SERIES}")
        drawing.marker((across(point.x), y), point.series, point.title)
    for point in points:
        drawing.label_near(
            (across(point.x), vertical(point.y)), fitted(point.name, 120), (area[0], area[1] - 8, WIDTH - 1, area[3])
        )
    keys = [mark_key(marker((7, 7), point.series), f"{point.name}: {point.title}") for point in points]
    return Figure(titles.chart, drawing.svg(), titles.caption, keys)


def _spoken(point: ScatterPoint) -> str:
    return f"{point.name} {fmt.number(point.x)}, {fmt.number(point.y)}"


def _around(values: Sequence[float], start: float, end: float) -> Axis:
    """Between round numbers around the values, which lie close together."""
    lowest, highest = min(values), max(values)
    spread = highest - lowest or abs(highest) * 0.01 or 1.0
    step = round_step(spread * 1.2 / _TICKS)
    low = math.floor((lowest - spread * 0.1) / step) * step
    count = math.ceil((highest + spread * 0.1 - low) / step - 1e-9)
    places = [low + step * index for index in range(count + 1)]
    return Axis(low, places[-1], start, end, [(place, tick_text(place, step)) for place in places])
