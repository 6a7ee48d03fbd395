"""SVG by hand: elements, escaped text that fits its place, markers that differ by shape and not by colour alone.

A drawing is WIDTH units wide and scales to its column: 360 units are about as many pixels, on a phone and in the
desktop's columns, so text keeps a readable size. Colours are classes; chart.css gives them a light and a dark value.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH = 360.0
FONT = 12.0  # as in chart.css
SERIES = 6  # colours and shapes before they repeat

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


def tag(name: str, content: str = "", **attributes: str | float) -> Markup:
    """One element. `class_` is class, `stroke_width` stroke-width; everything is escaped but Markup content."""
    pair = Markup(' {}="{}"')
    pairs = [pair.format(key.rstrip("_").replace("_", "-"), _written(value)) for key, value in attributes.items()]
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup("").join(pairs), content)


def _written(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def text_width(text: str) -> float:
    """An upper estimate, in units, by the advances of DejaVu Sans, the widest of common fonts."""
    return FONT * sum(map(_advance, text))


def _advance(char: str) -> float:
    if unicodedata.east_asian_width(char) in "WF":
        return 1.05
    if char in "mMWw@%—…":
        return 1.0
    if char in "+−=<>~×" or char.isupper():  # noqa: RUF001 - signs that stand in charts
        return 0.84
    return 0.35 if char in " .,:;'|ijl" else 0.64


def fitted(text: str, width: float) -> str:
    """The text, cut with an ellipsis to fit `width` units, on one line and without control characters."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    if text_width(clean) <= width:
        return clean
    while clean and text_width(clean + "…") > width:
        clean = clean[:-1]
    return clean.rstrip() + "…"


def path_of(points: Sequence[Point]) -> str:
    return "".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


class Drawing:
    """A chart in the making. y grows downwards, as in SVG."""

    def __init__(self, height: float, label: str) -> None:
        self.height = height
        self.label = label
        self._parts: list[Markup] = []
        self._taken: list[Box] = []  # boxes that labels must not overlap

    def text(self, x: float, y: float, text: str, *, anchor: str = "start", class_: str = "t", full: str = "") -> None:
        """One line of text, its baseline at y. `full` is shown by a pointer if the text was cut."""
        content = escape(text) + (tag("title", full) if full and full != text else "")
        extra = {} if anchor == "start" else {"text_anchor": anchor}
        self._parts.append(tag("text", content, x=x, y=y, class_=class_, **extra))

    def line(self, start: Point, end: Point, class_: str) -> None:
        self._parts.append(tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_))

    def rect(self, box: Box, class_: str, title: str = "") -> None:
        left, top, right, bottom = box
        size = {"width": max(right - left, 0.0), "height": max(bottom - top, 0.0)}
        self._parts.append(tag("rect", _title(title), x=left, y=top, class_=class_, **size))

    def path(self, points: Sequence[Point], class_: str, *, closed: bool = False, title: str = "") -> None:
        if points:
            self._parts.append(tag("path", _title(title), d=path_of(points) + ("Z" if closed else ""), class_=class_))

    def marker(self, at: Point, series: int, title: str = "", class_: str = "") -> None:
        """A point of a series; labels keep clear of it."""
        self._parts.append(marker(at, series, title, class_))
        self._taken.append((at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5))

    def add(self, part: Markup) -> None:
        self._parts.append(part)

    def cross(self, at: Point, title: str = "") -> None:
        self._parts.append(cross(at, title))

    def label_near(self, at: Point, text: str, area: Box) -> bool:
        """Write a small label beside a point, inside `area` and free of others; or leave it out."""
        width = text_width(text) * 0.94
        for dx, dy in ((0, -8), (0, 17), (8 + width / 2, 4), (-8 - width / 2, 4), (6 + width / 2, -8)):
            x, y = at[0] + dx, at[1] + dy
            box = (x - width / 2, y - 10, x + width / 2, y + 3)
            if self.is_free(box, area):
                self._taken.append(box)
                self.text(x, y, text, anchor="middle", class_="t halo")
                return True
        return False

    def is_free(self, box: Box, area: Box) -> bool:
        inside = area[0] <= box[0] and area[1] <= box[1] and box[2] <= area[2] and box[3] <= area[3]
        return inside and not any(overlap(box, taken) for taken in self._taken)

    def avoid(self, box: Box) -> None:
        self._taken.append(box)

    def svg(self) -> Markup:
        return tag(
            "svg",
            Markup("").join(self._parts),
            viewBox=f"0 0 {WIDTH:g} {self.height:g}",
            role="img",
            aria_label=self.label,
        )


def marker(at: Point, series: int, title: str = "", class_: str = "") -> Markup:
    """Circle, square, triangle, diamond, inverted triangle, pentagon, by the number of the series."""
    x, y = at
    shapes: list[Sequence[Point]] = [
        (),
        ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        ((0, -5), (5, 4), (-5, 4)),
        ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        ((0, 5), (5, -4), (-5, -4)),
        ((0, -5), (5, -1), (3, 5), (-3, 5), (-5, -1)),
    ]
    named = class_ or f"m s{series % SERIES}"
    shape = shapes[series % SERIES]
    if not shape:
        return tag("circle", _title(title), cx=x, cy=y, r=4.2, class_=named)
    return tag("path", _title(title), d=path_of([(x + dx, y + dy) for dx, dy in shape]) + "Z", class_=named)


def cross(at: Point, title: str = "", class_: str = "cross") -> Markup:
    x, y = at
    return tag("path", _title(title), d=f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8", class_=class_)


def _title(text: str) -> Markup:
    return tag("title", text) if text else Markup("")
