"""Charts with bars: stacked ones, one below the other, and shares over whole numbers, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelwright import text as fmt
from modelwright.charts.axes import draw_horizontal, draw_vertical, gutter, linear
from modelwright.charts.figure import Figure, area_key
from modelwright.charts.svg import WIDTH, Box, Drawing, fitted, text_width

_MAX_BARS = 24
_MAX_SPOKEN = 6
_PITCH = 42.0  # of stacked bars: a line of text, the bar, a gap
_LEFT, _RIGHT = 2.0, WIDTH - 18


@dataclass(frozen=True)
class Bar:
    """One stacked bar: the size of each part, in the order of the legend."""

    name: str
    parts: Sequence[float]


def stacked(
    title: str, bars: Sequence[Bar], names: Sequence[str], axis_title: str, caption: str = "", unit: str = "ms"
) -> Figure | None:
    """Horizontal bars on one scale, their names above them. None without bars."""
    shown = bars[:_MAX_BARS]
    if not shown:
        return None
    used = [index for index in range(len(names)) if any(bar.parts[index] > 0 for bar in shown)]
    height = len(shown) * _PITCH + 42
    totals = [f"{fitted(bar.name, 300)} {fmt.with_unit(sum(bar.parts), unit)}" for bar in shown[:_MAX_SPOKEN]]
    drawing = Drawing(height, f"{title}: {'; '.join(totals)}")
    scale = linear([sum(bar.parts) for bar in shown], _LEFT, _RIGHT, ticks=4)
    for value, _ in scale.ticks:
        drawing.line((scale(value), 4), (scale(value), height - 40), "grid")
    for row, bar in enumerate(shown):
        _stack(drawing, bar, names, row * _PITCH, scale.high, unit)
    draw_horizontal(drawing, scale, (_LEFT, 0, _RIGHT, height - 40), axis_title)
    left = f" The first {len(shown)} of {len(bars)}; the table has the rest." if len(bars) > len(shown) else ""
    keys = [area_key(f"bar s{index}", names[index]) for index in used]
    return Figure(title, drawing.svg(), f"{caption}{left}", keys)


def _stack(drawing: Drawing, bar: Bar, names: Sequence[str], top: float, high: float, unit: str) -> None:
    total = fmt.with_unit(sum(bar.parts), unit)
    room = _RIGHT - _LEFT - text_width(total) - 10
    drawing.text(_LEFT, top + 13, fitted(bar.name, room), full=bar.name, class_="t strong halo")
    drawing.text(_RIGHT, top + 13, total, anchor="end", class_="t halo")
    x, scale = _LEFT, (_RIGHT - _LEFT) / high
    for index, part in enumerate(bar.parts):
        width = part * scale
        if width > 0:
            title = f"{names[index]}: {fmt.with_unit(part, unit)}"
            drawing.rect((x, top + 18, x + width, top + 36), f"bar s{index}", title)
            if width > text_width(fmt.number(part)) + 6:
                drawing.text(x + width / 2, top + 31.5, fmt.number(part), anchor="middle", class_="t on")
        x += width


@dataclass(frozen=True)
class Histogram:
    """Shares over whole numbers, `sides` beside each other: name → number → share. At least one number.

    `of` is what the shares are of, `across` what the numbers are, one of them a `noun`; `notes` are for a pointer.
    """

    title: str
    sides: Mapping[str, Mapping[int, float]]
    of: str
    across: str
    noun: str
    caption: str = ""
    notes: Mapping[int, str] | None = None


def histogram(of: Histogram) -> Figure:
    numbers = sorted({number for side in of.sides.values() for number in side})
    drawing = Drawing(230, f"{of.title}: {_spoken(of.sides)}")
    vertical = linear([share * 100 for side in of.sides.values() for share in side.values()], 186, 30, ticks=4)
    area = (gutter(vertical), 30.0, WIDTH - 8, 186.0)
    draw_vertical(drawing, vertical, area, f"% of {of.of}")
    slot = (area[2] - area[0]) / len(numbers)
    width = min(slot * 0.8, 56.0) / len(of.sides)
    free = area[0] - 20
    for place, number in enumerate(numbers):
        middle = area[0] + slot * (place + 0.5)
        for index, (name, side) in enumerate(of.sides.items()):
            left = middle + (index - len(of.sides) / 2) * width
            share = side.get(number, 0.0)
            note = (of.notes or {}).get(number, name)
            box = (left, vertical(share * 100), left + width, area[3])
            drawing.rect(box, f"bar s{index}", f"{of.noun} {number}: {fmt.percent(share)}, {note}")
        free = _number_label(drawing, middle, str(number), free, area)
    drawing.line((area[0], area[3]), (area[2], area[3]), "axis")
    drawing.text((area[0] + area[2]) / 2, area[3] + 34, of.across, anchor="middle", class_="t title")
    keys = [area_key(f"bar s{index}", name) for index, name in enumerate(of.sides)] if len(of.sides) > 1 else []
    return Figure(of.title, drawing.svg(), of.caption, keys)


def _number_label(drawing: Drawing, middle: float, text: str, free: float, area: Box) -> float:
    """Write a label where the one before leaves room; returns where the next may begin."""
    half = text_width(text) / 2
    if middle - half < free or middle + half > area[2] + 8:
        return free
    drawing.text(middle, area[3] + 17, text, anchor="middle")
    return middle + half + 6


def _spoken(sides: Mapping[str, Mapping[int, float]]) -> str:
    most = {name: max(side, key=lambda number: side[number]) for name, side in sides.items() if side}
    return ", ".join(f"{name} mostly {number}" for name, number in most.items())
