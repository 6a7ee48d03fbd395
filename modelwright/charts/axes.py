"""Axes: map values to places, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelwright.charts.svg import WIDTH, Box, Drawing, text_width

_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_LOG_FROM = 20.0  # values that span more than this ratio are drawn on a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` lie between the places `start` and `end`, after `transform` (identity, log10, …)."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[tuple[float, str]]
    transform: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        low, high = self.transform(self.low), self.transform(self.high)
        share = (self.transform(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def linear(values: Iterable[float], start: float, end: float, ticks: int = 5, low: float = 0.0) -> Axis:
    """From `low` (0: lengths can be compared) to a round number above the values."""
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    highest = highest if highest > low else low + 1.0
    step = round_step((highest - low) / ticks)
    number = math.ceil((highest - low) / step - 1e-9)
    places = [low + step * index for index in range(number + 1)]
    return Axis(low, places[-1], start, end, [(place, tick_text(place, step)) for place in places])


def logarithmic(values: Iterable[float], start: float, end: float) -> Axis:
    """Between round numbers (1, 2, 5 of a decade) around the values; those not above 0 are left out."""
    positive = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    steps = _log_steps(min(positive), max(positive))
    wide = math.log10(steps[-1] / steps[0]) > 2.5
    shown = [step for step in steps if not wide or f"{step:e}".startswith("1.0")]
    return Axis(steps[0], steps[-1], start, end, [(step, tick_text(step, step)) for step in shown], math.log10)


def linear_or_logarithmic(values: Sequence[float], start: float, end: float) -> Axis:
    """Linear from 0; logarithmic if the values differ by more than a factor of 20."""
    positive = [value for value in values if value > 0]
    if positive and max(positive) / min(positive) > _LOG_FROM:
        return logarithmic(positive, start, end)
    return linear(values, start, end)


def quantiles(highest: float, start: float, end: float) -> Axis:
    """Quantiles on a scale of -log10(1 - q): 90, 99 and 99.9 % are equally far apart. `highest` is below 1."""
    shares = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999]
    last = max(highest, 0.9)
    ticks = [(share, f"{share * 100:.6g} %") for share in shares if share <= last + 1e-12]
    return Axis(0.0, last, start, end, ticks, lambda share: -math.log10(1 - share))


def round_step(step: float) -> float:
    """The next round number: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in _ROUND if digit * power >= step * (1 - 1e-9))


def tick_text(value: float, step: float) -> str:
    """As many decimals as the step has."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(step))
    decimals = max(0, -power + (1 if abs(step / 10.0**power - 2.5) < 1e-6 else 0))
    return f"{value:,.{decimals}f}"


def _log_steps(low: float, high: float) -> list[float]:
    first = math.floor(math.log10(low))
    every = [digit * 10.0**power for power in range(first, math.ceil(math.log10(high)) + 2) for digit in (1, 2, 5)]
    start = max(index for index, step in enumerate(every) if step <= low * (1 + 1e-9))
    stop = min(index for index, step in enumerate(every) if step >= high * (1 - 1e-9))
    return every[start : max(stop, start + 1) + 1]


def gutter(axis: Axis) -> float:
    """The width of a vertical axis's labels."""
    return max(text_width(label) for _, label in axis.ticks) + 8


def draw_vertical(drawing: Drawing, axis: Axis, area: Box, title: str) -> None:
    """Grid lines and labels on the left; the title above, since turned text is hard to read."""
    drawing.text(area[0] - gutter(axis) + 2, area[1] - 10, title, class_="t title")
    for value, label in axis.ticks:
        y = axis(value)
        drawing.line((area[0], y), (area[2], y), "axis" if value == axis.low else "grid")
        drawing.text(area[0] - 6, y + 4, label, anchor="end")


def draw_horizontal(drawing: Drawing, axis: Axis, area: Box, title: str) -> None:
    """Ticks below, as many labels as fit, then the title."""
    free = -math.inf
    for value, label in axis.ticks:
        drawing.line((axis(value), area[3]), (axis(value), area[3] + 4), "axis")
        half = text_width(label) / 2
        x = min(max(axis(value), half), WIDTH - half)  # within the drawing, even if that is beside its tick
        if x - half >= free:
            drawing.text(x, area[3] + 17, label, anchor="middle")
            free = x + half + 6
    drawing.line((area[0], area[3]), (area[2], area[3]), "axis")
    if title:
        drawing.text((area[0] + area[2]) / 2, area[3] + 33, title, anchor="middle", class_="t title")
