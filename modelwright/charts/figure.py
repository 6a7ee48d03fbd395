"""A chart as it stands on a page: its title, its drawing, a caption and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from modelwright.charts.svg import marker, tag


@dataclass(frozen=True)
class Key:
    """A line of a chart's legend."""

    swatch: Markup
    text: str


@dataclass(frozen=True)
class Figure:
    title: str
    svg: Markup
    caption: str = ""
    legend: Sequence[Key] = ()
    kind: ClassVar[str] = "figure"


def line_key(series: int, text: str, *, dashed: bool = False, mark: bool = True) -> Key:
    parts = tag("line", x1=1, y1=7, x2=27, y2=7, class_=f"l s{series}" + (" dash" if dashed else ""))
    return Key(_swatch(parts + (marker((14, 7), series) if mark else Markup("")), 28), text)


def area_key(class_: str, text: str) -> Key:
    return Key(_swatch(tag("rect", x=1, y=2, width=12, height=10, class_=class_), 14), text)


def mark_key(mark: Markup, text: str) -> Key:
    return Key(_swatch(mark, 14), text)


def _swatch(content: Markup, width: int) -> Markup:
    return tag("svg", content, viewBox=f"0 0 {width} 14", width=width, height=14, aria_hidden="true")
