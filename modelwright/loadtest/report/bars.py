"""Charts with bars: where a request's time goes, batch sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelwright.charts.axes import draw_horizontal, draw_vertical, gutter, linear
from modelwright.charts.svg import WIDTH, Box, Drawing, fitted, text_width
from modelwright.loadtest.document import Attribution, Measurement, Server
from modelwright.loadtest.report import words
from modelwright.loadtest.report.blocks import Figure, area_key

PARTS = ("queue", "compute input", "compute infer", "compute output", "other in the server", "network and client")
_MOST_BARS = 24
_PITCH = 42.0  # of stacked bars: a line of text, the bar, a gap
_LEFT, _RIGHT = 2.0, WIDTH - 18


@dataclass(frozen=True)
class Bar:
    """One stacked bar: milliseconds of each part, in the order of the legend."""

    name: str
    parts: Sequence[float]


def parts_ms(server: Server, network_and_client_ms: float | None) -> list[float]:
    """Mean milliseconds of a request by PARTS. What the means do not add up to is no part (none is below 0)."""
    known = [server.queue_ms, server.compute_input_ms, server.compute_infer_ms, server.compute_output_ms]
    return [max(part, 0.0) for part in (*known, server.mean_ms - sum(known), network_and_client_ms or 0.0)]


def split(measurements: Sequence[Measurement], title: str = "Where a request's time goes") -> Figure | None:
    """Queue, compute and the rest of each measurement with the server's statistics, small loads first."""
    ordered = sorted(
        measurements, key=lambda item: (item.load.batch, item.load.concurrency or 0, item.load.rate or 0.0)
    )
    bars = [
        Bar(item.label, parts_ms(item.server, item.client.network_and_client_ms))
        for item in ordered
        if item.server is not None and item.server.requests
    ]
    return stacked(title, bars, PARTS)


def stacked(title: str, bars: Sequence[Bar], names: Sequence[str]) -> Figure | None:
    """Horizontal bars on one scale, their names above them. None without bars."""
    shown = bars[:_MOST_BARS]
    if not shown:
        return None
    used = [index for index in range(len(names)) if any(bar.parts[index] > 0 for bar in shown)]
    height = len(shown) * _PITCH + 42
    spoken = "; ".join(f"{fitted(bar.name, 300)} {words.ms(sum(bar.parts))}" for bar in shown[:6])
    drawing = Drawing(height, f"{title}: {spoken}")
    scale = linear([sum(bar.parts) for bar in shown], _LEFT, _RIGHT, ticks=4)
    for value, _ in scale.ticks:
        drawing.line((scale(value), 4), (scale(value), height - 40), "grid")
    for row, bar in enumerate(shown):
        _stack(drawing, bar, names, row * _PITCH, scale.start, scale.high)
    draw_horizontal(drawing, scale, (_LEFT, 0, _RIGHT, height - 40), "mean ms a request")
    left = f" The first {len(shown)} of {len(bars)}; the table has the rest." if len(bars) > len(shown) else ""
    keys = [area_key(f"bar s{index}", names[index]) for index in used]
    return Figure(title, drawing.svg(), f"Mean of all requests, by the server's own statistics.{left}", keys)


def _stack(drawing: Drawing, bar: Bar, names: Sequence[str], top: float, start: float, high: float) -> None:
    total = words.ms(sum(bar.parts))
    room = _RIGHT - _LEFT - text_width(total) - 10
    drawing.text(_LEFT, top + 13, fitted(bar.name, room), full=bar.name, class_="t strong halo")
    drawing.text(_RIGHT, top + 13, total, anchor="end", class_="t halo")
    x, scale = start, (_RIGHT - _LEFT) / high
    for index, part in enumerate(bar.parts):
        width = part * scale
        if width > 0:
            drawing.rect((x, top + 18, x + width, top + 36), f"bar s{index}", f"{names[index]}: {words.ms(part)}")
            if width > text_width(words.number(part)) + 6:
                drawing.text(x + width / 2, top + 31.5, words.number(part), anchor="middle", class_="t on")
        x += width


def shares(attribution: Attribution) -> Figure | None:
    """The parts of a request's time, baseline above candidate."""
    names = [share.part for share in attribution.shares]
    if not names:
        return None
    bars = [
        Bar("baseline", [max(share.baseline_ms, 0.0) for share in attribution.shares]),
        Bar("candidate", [max(share.candidate_ms, 0.0) for share in attribution.shares]),
    ]
    title = f"Where a request's time goes, {attribution.regime}"
    return stacked(title, bars, names) if any(map(sum, (bar.parts for bar in bars))) else None


# --- batch sizes ------------------------------------------------------------------------------------------------------


def batch_sizes(server: Server) -> Figure | None:
    """The share of the executions at each batch size."""
    total = sum(batch.executions for batch in server.batches)
    if not total:
        return None
    values = {batch.size: batch.executions / total for batch in server.batches if batch.executions}
    notes = {
        batch.size: f"{batch.executions:,} executions, {words.ms(batch.compute_ms)} each" for batch in server.batches
    }
    mean = f" Mean {words.number(server.mean_batch)}." if server.mean_batch is not None else ""
    return _histogram("Batch sizes", {"executions": values}, f"As the server ran them.{mean}", notes)


def batch_mix(attribution: Attribution) -> Figure | None:
    """Baseline and candidate side by side."""
    sides = {"baseline": attribution.baseline_batches, "candidate": attribution.candidate_batches}
    if not any(sides.values()):
        return None
    means = [words.number(mean) for mean in (attribution.baseline_batch, attribution.candidate_batch)]
    return _histogram(f"Batch sizes, {attribution.regime}", sides, f"Mean {means[0]}, then {means[1]}.")


def _histogram(
    title: str, sides: Mapping[str, Mapping[int, float]], caption: str, notes: Mapping[int, str] | None = None
) -> Figure:
    """Bars over batch sizes, `sides` beside each other: name → size → share of the executions."""
    sizes = sorted({size for side in sides.values() for size in side})
    drawing = Drawing(230, f"{title}: {_spoken(sides)}")
    vertical = linear([share * 100 for side in sides.values() for share in side.values()], 186, 30, ticks=4)
    area = (gutter(vertical), 30.0, WIDTH - 8, 186.0)
    draw_vertical(drawing, vertical, area, "% of executions")
    slot = (area[2] - area[0]) / len(sizes)
    width = min(slot * 0.8, 56.0) / len(sides)
    free = area[0] - 20
    for place, size in enumerate(sizes):
        middle = area[0] + slot * (place + 0.5)
        for index, (name, side) in enumerate(sides.items()):
            left = middle + (index - len(sides) / 2) * width
            box = (left, vertical(side.get(size, 0.0) * 100), left + width, area[3])
            note = (notes or {}).get(size, name)
            drawing.rect(box, f"bar s{index}", f"batch {size}: {words.percent(side.get(size, 0.0))}, {note}")
        free = _size_label(drawing, middle, str(size), free, area)
    drawing.line((area[0], area[3]), (area[2], area[3]), "axis")
    drawing.text((area[0] + area[2]) / 2, area[3] + 34, "batch size", anchor="middle", class_="t title")
    keys = [area_key(f"bar s{index}", name) for index, name in enumerate(sides)] if len(sides) > 1 else []
    return Figure(title, drawing.svg(), caption, keys)


def _size_label(drawing: Drawing, middle: float, text: str, free: float, area: Box) -> float:
    """Write a label where the one before leaves room; returns where the next may begin."""
    half = text_width(text) / 2
    if middle - half < free or middle + half > area[2] + 8:
        return free
    drawing.text(middle, area[3] + 17, text, anchor="middle")
    return middle + half + 6


def _spoken(sides: Mapping[str, Mapping[int, float]]) -> str:
    most = {name: max(side, key=lambda size: side[size]) for name, side in sides.items() if side}
    return ", ".join(f"{name} mostly {size}" for name, size in most.items())
