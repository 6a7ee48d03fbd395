"""A confusion matrix as a picture of its own: an SVG file, which needs no stylesheet."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from modelwright.charts.svg import FONT, fitted, tag, text_width

_CELL, _GAP, _LONGEST = 34.0, 8.0, 140.0
_BLUE, _INK = "#0b63b0", "#1b1f24"
MOST_CLASSES = 60


def matrix_svg(title: str, rows: Sequence[Sequence[int]], names: Sequence[str] = ()) -> str:
    """Rows are what is true, columns what the model says. `names`: of the classes; without them, numbers."""
    labels = [fitted(name, _LONGEST) for name in names] if len(names) == len(rows) else list(map(str, range(len(rows))))
    left = max(map(text_width, labels), default=0.0) + _GAP + 24
    top, size = 52.0, _CELL * len(rows)
    foot = max(map(text_width, labels), default=0.0) + 34
    width, height = max(left + size + 12, text_width(title) + 20), top + size + foot
    parts = [tag("rect", width=width, height=height, fill="#ffffff"), _text(10, 20, title, weight="600")]
    parts.append(_text(left + size / 2, top - 10, "what the model says →", anchor="middle"))
    for row, counts in enumerate(rows):
        y = top + row * _CELL
        parts.append(_text(left - _GAP, y + _CELL / 2 + 4, labels[row], anchor="end"))
        parts += [
            _cell(left + column * _CELL, y, counts, column, labels[row], labels[column]) for column in range(len(rows))
        ]
    for column, label in enumerate(labels):
        x, y = left + column * _CELL + _CELL / 2 + 4, top + size + _GAP
        parts.append(_text(x, y, label, anchor="end", transform=f"rotate(-90 {x:.1f} {y:.1f})"))
    svg = tag(
        "svg",
        Markup("").join(parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        role="img",
        font_family="DejaVu Sans, Arial, sans-serif",
        font_size=FONT,
    )
    return f"{svg}\n"


def _cell(x: float, y: float, counts: Sequence[int], column: int, truth: str, said: str) -> Markup:
    """Its colour is the share of its row."""
    count, total = counts[column], sum(counts)
    share = count / total if total else 0.0
    box = tag("title", f"{truth} → {said}: {count} of {total}")
    parts = [
        tag(
            "rect",
            box,
            x=x,
            y=y,
            width=_CELL,
            height=_CELL,
            fill=_BLUE,
            fill_opacity=f"{0.04 + 0.9 * share:.2f}",
            stroke="#ffffff",
        )
    ]
    if count:
        colour = "#ffffff" if share > 0.5 else _INK
        parts.append(_text(x + _CELL / 2, y + _CELL / 2 + 4, _short(count), anchor="middle", fill=colour))
    return Markup("").join(parts)


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.0f}M"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", fill: str = _INK, transform: str = ""
) -> Markup:
    turned = {"transform": transform} if transform else {}
    return tag("text", text, x=x, y=y, text_anchor=anchor, font_weight=weight, fill=fill, **turned)
