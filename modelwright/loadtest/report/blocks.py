"""The blocks of a page: figures, tables, texts and folded parts. The template has a macro for each `kind`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from modelwright.charts.figure import Figure

Tone = Literal["good", "bad", "unsure", "plain"]
_TONES: dict[str, Tone] = {
    "VALID": "good",
    "PASS": "good",
    "INVALID": "bad",
    "FAIL": "bad",
    "INCONCLUSIVE": "unsure",
    "STOPPED EARLY": "unsure",
    "MIXED": "unsure",
    "NO VERDICT": "unsure",
    "BUSY MACHINE": "unsure",
    "MEASURED": "plain",
    "OBJECTIVE HOLDS": "good",
    "OBJECTIVE DOES NOT HOLD": "bad",
}


@dataclass(frozen=True)
class Badge:
    """A verdict: a word, with the colour and the shape of its tone."""

    word: str
    kind: ClassVar[str] = "badge"

    @property
    def tone(self) -> Tone:
        return _TONES.get(self.word, "plain")


@dataclass(frozen=True)
class Figures:
    """Charts side by side where there is room."""

    items: Sequence[Figure]
    kind: ClassVar[str] = "figures"


Cell = str | Badge


@dataclass(frozen=True)
class Table:
    """`numeric` columns are set to the right."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Definitions:
    """Names and values."""

    title: str
    pairs: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "pairs"


@dataclass(frozen=True)
class Text:
    text: str
    title: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Bullets:
    """A list under a lead-in; `tone` colours its edge."""

    lead: str
    items: Sequence[str]
    tone: Tone = "plain"
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True)
class Folded:
    """Closed until a reader opens it, or open from the start."""

    title: str
    blocks: Sequence[Block]
    badge: Badge | None = None
    hint: str = ""
    opened: bool = False
    kind: ClassVar[str] = "folded"


@dataclass(frozen=True)
class Card:
    """A part of the page with its own heading and verdict."""

    title: str
    blocks: Sequence[Block]
    badge: Badge | None = None
    kind: ClassVar[str] = "card"


Block = Figures | Table | Definitions | Text | Bullets | Folded | Card


@dataclass(frozen=True)
class Tile:
    """A large number at the top."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """What a reader sees first: the verdict in a sentence or two, the numbers, and notes on them."""

    badge: Badge
    lead: str
    text: str = ""
    tiles: Sequence[Tile] = ()
    blocks: Sequence[Block] = ()
    tiles_of: str = ""  # which measurement, where there are several


@dataclass(frozen=True)
class Page:
    title: str
    subtitle: str
    headline: Headline
    blocks: Sequence[Block] = field(default_factory=tuple)
