"""Charts with lines: values over values, values and steps over time, quantiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelwright import text as fmt
from modelwright.charts.axes import (
    Axis,
    draw_horizontal,
    draw_vertical,
    gutter,
    linear,
    linear_or_logarithmic,
    quantiles,
)
from modelwright.charts.figure import Figure, Key, line_key, mark_key
from modelwright.charts.svg import SERIES, WIDTH, Box, Drawing, Point, cross, marker, text_width

_TOP, _RIGHT = 30.0, WIDTH - 20  # room for the axis title, and for the half of the last label
_HEIGHT = 270.0
_BOTTOM = _HEIGHT - 44
_MAX_MARKED = 40  # points of a line over time that have markers


@dataclass(frozen=True)
class Spot:
    """A point of a line. `label` stands beside it, a pointer shows `title`."""

    x: float
    y: float
    label: str
    title: str
    hollow: bool = False


@dataclass(frozen=True)
class Line:
    """A series; `colour` says which, so that it is the same one in every chart."""

    name: str
    spots: Sequence[Spot]
    colour: int
    dashed: bool = False
    labelled: bool = True


@dataclass(frozen=True)
class LineTitles:
    """Of a chart and its axes; `unit` is that of the vertical one, and `hollow` what a hollow point means."""

    chart: str
    across: str
    unit: str = "ms"
    caption: str = ""
    hollow: str = ""


def xy(titles: LineTitles, lines: Sequence[Line], limit: float | None = None, limit_text: str = "") -> Figure | None:
    """Lines through points; `limit` is a horizontal line with a text. None where no line has a point."""
    lines = [line for line in lines if line.spots]
    if not lines:
        return None
    spots = [spot for line in lines for spot in line.spots]
    values = [spot.y for spot in spots] + ([limit] if limit else [])
    drawing = Drawing(_HEIGHT, f"{titles.chart}: {len(spots)} points, {_range(values, titles.unit)}")
    vertical = linear_or_logarithmic(values, _BOTTOM, _TOP)
    area = (gutter(vertical), _TOP, _RIGHT, _BOTTOM)
    across = linear([spot.x for spot in spots], area[0], area[2])
    draw_vertical(drawing, vertical, area, titles.unit)
    draw_horizontal(drawing, across, area, titles.across)
    if limit:
        drawing.line((area[0], vertical(limit)), (area[2], vertical(limit)), "limit")
    for line in lines:
        _spots(drawing, line, across, vertical)
    if limit:
        _limit_text(drawing, vertical(limit), area, limit_text)
    for line in lines:
        for spot in line.spots if line.labelled else ():
            drawing.label_near((across(spot.x), vertical(spot.y)), spot.label, _labels(area))
    return Figure(titles.chart, drawing.svg(), titles.caption, _keys(lines, titles.hollow))


def _labels(area: Box) -> Box:
    """Labels of points may reach over the right edge, to where the drawing ends."""
    return (area[0], area[1] - 8, WIDTH - 1, area[3])


def _spots(drawing: Drawing, line: Line, across: Axis, vertical: Axis) -> None:
    places = [(across(spot.x), vertical(spot.y)) for spot in line.spots]
    drawing.path(places, f"l s{line.colour % SERIES}" + (" dash" if line.dashed else ""))
    for place, spot in zip(places, line.spots, strict=True):
        drawing.marker(place, line.colour, spot.title, f"m s{line.colour % SERIES} hollow" if spot.hollow else "")


def _keys(lines: Sequence[Line], hollow: str) -> list[Key]:
    keys = [line_key(line.colour % SERIES, line.name, dashed=line.dashed) for line in lines]
    if any(spot.hollow for line in lines for spot in line.spots):
        keys.append(mark_key(marker((7, 7), 0, class_="m s0 hollow"), f"hollow: {hollow}"))
    return keys


def _limit_text(drawing: Drawing, y: float, area: Box, text: str) -> None:
    """Name the limit's line at one of its ends, above or below it, where no point is."""
    width = text_width(text)
    for left, baseline in itertools.product((area[0] + 3, area[2] - width - 2), (y - 6, y + 15)):
        box = (left, baseline - 11, left + width, baseline + 3)
        if drawing.is_free(box, area):
            break
    drawing.avoid(box)
    drawing.text(box[0], baseline, text, class_="t halo")


def _range(values: Sequence[float], unit: str) -> str:
    return f"{fmt.with_unit(min(values), unit)} to {fmt.with_unit(max(values), unit)}"


# --- over time --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slice:
    """A stretch of time: `values`, one for each line, None where one is not known, and the `level` of the steps.

    `marked` puts a cross above the steps, with this text for a pointer.
    """

    start_s: float
    duration_s: float
    values: Sequence[float | None]
    level: float
    title: str
    marked: str = ""

    @property
    def middle_s(self) -> float:
        return self.start_s + self.duration_s / 2

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s


@dataclass(frozen=True)
class TimeTitles:
    """Of a chart over time: of its lines and their unit, of its steps, and of the crosses."""

    chart: str
    lines: Sequence[str]
    unit: str
    nothing: str  # what is said where no value is known
    steps: str
    steps_unit: str
    marked: str
    caption: str = ""


def over_time(titles: TimeTitles, slices: Sequence[Slice]) -> Figure:
    """Lines where any of their values is known, and below them, on the same time axis, steps. At least one slice."""
    known = [value for item in slices for value in item.values if value is not None]
    top = 220.0 if known else _TOP  # of the panel with the steps
    end_s = max(item.end_s for item in slices)
    spoken = _range(known, titles.unit) if known else titles.nothing
    drawing = Drawing(top + 110, f"{titles.chart}, {fmt.seconds(end_s)}: {spoken}")
    upper = linear_or_logarithmic(known, 170, _TOP)
    lower = linear([item.level for item in slices], top + 66, top, ticks=3)
    left = max(gutter(upper), gutter(lower)) if known else gutter(lower)
    across = _times(end_s, left)
    if known:
        draw_vertical(drawing, upper, (left, _TOP, _RIGHT, 170), titles.unit)
        for series in range(len(titles.lines)):
            _with_gaps(drawing, slices, series, across, upper)
    area = (left, top, _RIGHT, top + 66)
    draw_vertical(drawing, lower, area, titles.steps_unit)
    draw_horizontal(drawing, across, area, "seconds")
    _steps(drawing, slices, len(titles.lines), across, lower)
    for item in slices:
        drawing.rect((across(item.start_s), _TOP, across(item.end_s), area[3]), "hover", item.title)
    return Figure(titles.chart, drawing.svg(), titles.caption, _time_keys(titles, slices))


def _times(end_s: float, left: float) -> Axis:
    """From 0 to the end of the last slice, which need not be a round number."""
    ticks = [tick for tick in linear([end_s], left, _RIGHT).ticks if tick[0] <= end_s]
    return Axis(0.0, end_s, left, _RIGHT, ticks)


def _time_keys(titles: TimeTitles, slices: Sequence[Slice]) -> list[Key]:
    shown = [series for series in range(len(titles.lines)) if any(item.values[series] is not None for item in slices)]
    keys = [line_key(series, titles.lines[series]) for series in shown]
    keys.append(line_key(len(titles.lines), titles.steps, mark=False))
    return [*keys, mark_key(cross((7, 7)), titles.marked)] if any(item.marked for item in slices) else keys


def _with_gaps(drawing: Drawing, slices: Sequence[Slice], series: int, across: Axis, upper: Axis) -> None:
    """A line that is not drawn over what is not known."""
    values = [item.values[series] for item in slices]
    for run in _runs(values):
        places = [(across(slices[index].middle_s), upper(values[index] or 0.0)) for index in run]
        drawing.path(places, f"l s{series}")
        for place in places if len(slices) <= _MAX_MARKED or len(run) == 1 else ():
            drawing.marker(place, series)


def _steps(drawing: Drawing, slices: Sequence[Slice], series: int, across: Axis, lower: Axis) -> None:
    corners: list[Point] = []
    for item in slices:
        y = lower(item.level)
        corners += [(across(item.start_s), y), (across(item.end_s), y)]
    base = lower(0.0)
    drawing.path([(corners[0][0], base), *corners, (corners[-1][0], base)], f"area s{series}", closed=True)
    drawing.path(corners, f"l s{series}")
    for item in slices:
        if item.marked:
            drawing.cross((across(item.middle_s), lower.start - 9), item.marked)


def _runs(values: Sequence[float | None]) -> list[list[int]]:
    """Indices of values without a gap between them."""
    runs: list[list[int]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(index)
    return [run for run in runs if run]


# --- quantiles --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quantiles:
    """A curve: (quantile below 1, value), in order."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


def quantile_curves(titles: LineTitles, curves: Sequence[Quantiles], named: Sequence[float]) -> Figure | None:
    """Values by quantile, the first curve above the others; the `named` quantiles are marked. None without a curve."""
    highest = max((quantile for quantile, _ in curves[0].points), default=0.0)
    if len(curves[0].points) < 2:
        return None
    values = [value for curve in curves for _, value in curve.points]
    drawing = Drawing(_HEIGHT, f"{titles.chart} up to {highest * 100:.6g} %: {_range(values, titles.unit)}")
    vertical = linear_or_logarithmic(values, _BOTTOM, _TOP)
    area = (gutter(vertical), _TOP, _RIGHT, _BOTTOM)
    across = quantiles(highest, area[0], area[2])
    draw_vertical(drawing, vertical, area, titles.unit)
    draw_horizontal(drawing, across, area, titles.across)
    for value, _ in across.ticks:
        drawing.line((across(value), area[1]), (across(value), area[3]), "grid")
    for series, curve in reversed(list(enumerate(curves))):
        places = [(across(quantile), vertical(value)) for quantile, value in curve.points]
        drawing.path(places, f"l s{series}" + (" dash" if curve.dashed else ""))
    _named_points(drawing, curves, named, across, vertical, area, titles.unit)
    keys = [line_key(series, curve.name, dashed=curve.dashed, mark=False) for series, curve in enumerate(curves)]
    return Figure(titles.chart, drawing.svg(), titles.caption, keys)


def _named_points(
    drawing: Drawing,
    curves: Sequence[Quantiles],
    named: Sequence[float],
    across: Axis,
    vertical: Axis,
    area: Box,
    unit: str,
) -> None:
    """Markers and values where people look."""
    places: list[tuple[Point, str]] = []
    for series, curve in enumerate(curves):
        for quantile, value in curve.points:
            if any(math.isclose(quantile, one) for one in named):
                at = (across(quantile), vertical(value))
                drawing.marker(at, series, f"{quantile * 100:.6g} %: {fmt.with_unit(value, unit)}")
                places.append((at, fmt.number(value)))
    for at, text in reversed(places):
        drawing.label_near(at, text, _labels(area))
