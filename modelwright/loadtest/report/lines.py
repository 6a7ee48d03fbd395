"""Charts with lines: throughput against latency, latency over time, the percentile curve."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelwright.charts.axes import (
    Axis,
    draw_horizontal,
    draw_vertical,
    gutter,
    latency_axis,
    linear,
    percentiles,
)
from modelwright.charts.svg import SERIES, WIDTH, Box, Drawing, Point, cross, marker, text_width
from modelwright.loadtest.document import CurvePoint, Measurement, Window
from modelwright.loadtest.report import words
from modelwright.loadtest.report.blocks import Figure, Key, line_key, mark_key

_TOP, _RIGHT = 30.0, WIDTH - 20  # room for the axis title, and for the half of the last label
_HEIGHT = 270.0
_BOTTOM = _HEIGHT - 44


@dataclass(frozen=True)
class Spot:
    """One measurement in a chart of throughput and latency."""

    throughput: float
    latency_ms: float
    label: str
    title: str
    held: bool = True


@dataclass(frozen=True)
class Line:
    """A series; `colour` says which, so that it is the same one in every chart."""

    name: str
    spots: Sequence[Spot]
    colour: int
    dashed: bool = False
    labelled: bool = True


def throughput_latency(
    title: str,
    lines: Sequence[Line],
    caption: str,
    *,
    unit: str = "requests a second",
    objective_ms: float | None = None,
) -> Figure | None:
    """Latency over throughput, each point a load. None where no line has a point."""
    lines = [line for line in lines if line.spots]
    if not lines:
        return None
    spots = [spot for line in lines for spot in line.spots]
    values = [spot.latency_ms for spot in spots] + ([objective_ms] if objective_ms else [])
    drawing = Drawing(_HEIGHT, f"{title}: {len(spots)} points, {words.ms(min(values))} to {words.ms(max(values))}")
    vertical = latency_axis(values, _BOTTOM, _TOP)
    area = (gutter(vertical), _TOP, _RIGHT, _BOTTOM)
    across = linear([spot.throughput for spot in spots], area[0], area[2])
    draw_vertical(drawing, vertical, area, "ms")
    draw_horizontal(drawing, across, area, unit)
    if objective_ms:
        drawing.line((area[0], vertical(objective_ms)), (area[2], vertical(objective_ms)), "limit")
    for line in lines:
        _spots(drawing, line, across, vertical)
    if objective_ms:
        _objective(drawing, vertical(objective_ms), area, f"objective {words.given(objective_ms)} ms")
    for line in lines:
        for spot in line.spots if line.labelled else ():
            drawing.label_near((across(spot.throughput), vertical(spot.latency_ms)), spot.label, _labels(area))
    return Figure(title, drawing.svg(), caption, _keys(lines))


def _labels(area: Box) -> Box:
    """Labels of points may reach over the right edge, to where the drawing ends."""
    return (area[0], area[1] - 8, WIDTH - 1, area[3])


def _spots(drawing: Drawing, line: Line, across: Axis, vertical: Axis) -> None:
    places = [(across(spot.throughput), vertical(spot.latency_ms)) for spot in line.spots]
    drawing.path(places, f"l s{line.colour % SERIES}" + (" dash" if line.dashed else ""))
    for place, spot in zip(places, line.spots, strict=True):
        drawing.marker(place, line.colour, spot.title, "" if spot.held else f"m s{line.colour % SERIES} hollow")


def _keys(lines: Sequence[Line]) -> list[Key]:
    keys = [line_key(line.colour % SERIES, line.name, dashed=line.dashed) for line in lines]
    if any(not spot.held for line in lines for spot in line.spots):
        keys.append(mark_key(marker((7, 7), 0, class_="m s0 hollow"), "hollow: the objective did not hold"))
    return keys


def _objective(drawing: Drawing, y: float, area: Box, text: str) -> None:
    """Name the line of the objective at one of its ends, above or below it, where no point is."""
    width = text_width(text)
    for left, baseline in itertools.product((area[0] + 3, area[2] - width - 2), (y - 6, y + 15)):
        box = (left, baseline - 11, left + width, baseline + 3)
        if drawing.is_free(box, area):
            break
    drawing.avoid(box)
    drawing.text(box[0], baseline, text, class_="t halo")


# --- over time --------------------------------------------------------------------------------------------------------


def over_time(windows: Sequence[Window]) -> Figure | None:
    """p50 and p99 of each window where they are known, and below on the same time axis throughput and what failed."""
    if not any(window.requests for window in windows):
        return None
    latencies = [value for window in windows for value in (window.p50_ms, window.p99_ms) if value is not None]
    top = 220.0 if latencies else _TOP  # of the panel with throughput
    title = "Latency and throughput over time" if latencies else "Throughput over time"
    drawing = Drawing(top + 110, f"{title}, {words.seconds(_end(windows))}: {_range(latencies)}")
    upper = latency_axis(latencies, 170, _TOP)
    lower = linear([window.throughput for window in windows], top + 66, top, ticks=3)
    left = max(gutter(upper), gutter(lower)) if latencies else gutter(lower)
    across = _times(windows, left)
    if latencies:
        _window_latency(drawing, windows, across, upper, (left, _TOP, _RIGHT, 170))
    area = (left, top, _RIGHT, top + 66)
    draw_vertical(drawing, lower, area, "requests a second")
    draw_horizontal(drawing, across, area, "seconds")
    _steps(drawing, windows, across, lower)
    for window in windows:
        box = (across(window.start_s), _TOP, across(window.start_s + window.duration_s), area[3])
        drawing.rect(box, "hover", _window_title(window))
    caption = "Service time by when requests ended; warm-up left out." if latencies else "Warm-up left out."
    return Figure(title, drawing.svg(), caption, _time_keys(windows))


def _times(windows: Sequence[Window], left: float) -> Axis:
    """From 0 to the end of the last window, which need not be a round number."""
    end = _end(windows)
    ticks = [tick for tick in linear([end], left, _RIGHT).ticks if tick[0] <= end]
    return Axis(0.0, end, left, _RIGHT, ticks)


def _time_keys(windows: Sequence[Window]) -> list[Key]:
    keys = [line_key(0, "p50")] if any(window.p50_ms is not None for window in windows) else []
    keys += [line_key(1, "p99")] if any(window.p99_ms is not None for window in windows) else []
    keys.append(line_key(2, "throughput", mark=False))
    return [*keys, mark_key(cross((7, 7)), "requests failed")] if any(window.failed for window in windows) else keys


def _window_latency(drawing: Drawing, windows: Sequence[Window], across: Axis, upper: Axis, area: Box) -> None:
    draw_vertical(drawing, upper, area, "ms")
    for series, values in enumerate(([w.p50_ms for w in windows], [w.p99_ms for w in windows])):
        for run in _runs(values):
            places = [(across(_middle(windows[index])), upper(values[index] or 0.0)) for index in run]
            drawing.path(places, f"l s{series}")
            for place in places if len(windows) <= 40 or len(run) == 1 else ():
                drawing.marker(place, series)


def _steps(drawing: Drawing, windows: Sequence[Window], across: Axis, lower: Axis) -> None:
    corners: list[Point] = []
    for window in windows:
        y = lower(window.throughput)
        corners += [(across(window.start_s), y), (across(window.start_s + window.duration_s), y)]
    base = lower(0.0)
    drawing.path([(corners[0][0], base), *corners, (corners[-1][0], base)], "area s2", closed=True)
    drawing.path(corners, "l s2")
    for window in windows:
        if window.failed:
            drawing.cross((across(_middle(window)), lower.start - 9), f"{window.failed:,} failed")


def _runs(values: Sequence[float | None]) -> list[list[int]]:
    """Where there are values without a gap: a line is not drawn over what is not known."""
    runs: list[list[int]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(index)
    return [run for run in runs if run]


def _window_title(window: Window) -> str:
    times = f"{window.start_s:.3g} to {window.start_s + window.duration_s:.3g} s"
    failed = f", {window.failed:,} failed" if window.failed else ""
    latencies = f"p50 {words.ms(window.p50_ms)}, p99 {words.ms(window.p99_ms)}"
    return f"{times}: {words.rate(window.throughput)}, {latencies}{failed}"


def _middle(window: Window) -> float:
    return window.start_s + window.duration_s / 2


def _end(windows: Sequence[Window]) -> float:
    return max(window.start_s + window.duration_s for window in windows)


def _range(values: Sequence[float]) -> str:
    return f"{words.ms(min(values))} to {words.ms(max(values))}" if values else "no latencies"


# --- percentile curve -------------------------------------------------------------------------------------------------


def percentile_curve(measurement: Measurement) -> Figure | None:
    """Latency by percentile, response time beside service time where the loop is open."""
    points = [point for point in measurement.curve if 0 <= point.quantile < 1]
    if len(points) < 2:
        return None
    opened = measurement.load.mode == "open"
    values = [point.service_ms for point in points] + [point.response_ms for point in points if opened]
    drawing = Drawing(_HEIGHT, f"Percentile curve up to {_highest(points) * 100:.6g} %: {_range(values)}")
    vertical = latency_axis(values, _BOTTOM, _TOP)
    area = (gutter(vertical), _TOP, _RIGHT, _BOTTOM)
    across = percentiles(_highest(points), area[0], area[2])
    draw_vertical(drawing, vertical, area, "ms")
    draw_horizontal(drawing, across, area, "share of requests that took no longer")
    for value, _ in across.ticks:
        drawing.line((across(value), area[1]), (across(value), area[3]), "grid")
    if opened:
        drawing.path([(across(p.quantile), vertical(p.response_ms)) for p in points], "l s1 dash")
    drawing.path([(across(p.quantile), vertical(p.service_ms)) for p in points], "l s0")
    _named_points(drawing, points, across, vertical, area, opened)
    keys = [line_key(0, "service time", mark=False)]
    keys += [line_key(1, "response time, from the intended start", dashed=True, mark=False)] if opened else []
    caption = (
        "" if opened else "Closed loop: a request is sent when the one before it is done, so both times are the same."
    )
    return Figure("Percentile curve", drawing.svg(), caption, keys)


def _named_points(
    drawing: Drawing, points: Sequence[CurvePoint], across: Axis, vertical: Axis, area: Box, opened: bool
) -> None:
    """Markers and values where people look."""
    named = [point for point in points if any(math.isclose(point.quantile, q) for q in (0.5, 0.9, 0.99, 0.999))]
    places: list[tuple[Point, str]] = []
    for series, values in enumerate(([p.service_ms for p in named], [p.response_ms for p in named] if opened else [])):
        for point, value in zip(named, values, strict=False):
            at = (across(point.quantile), vertical(value))
            drawing.marker(at, series, f"{point.quantile * 100:.6g} %: {words.ms(value)}")
            places.append((at, words.number(value)))
    for at, text in reversed(places):
        drawing.label_near(at, text, _labels(area))


def _highest(points: Sequence[CurvePoint]) -> float:
    return max(point.quantile for point in points)
