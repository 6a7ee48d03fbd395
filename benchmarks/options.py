"""How much to measure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """`quick` looks whether a benchmark runs at all; its figures mean little."""

    quick: bool = False

    def rounds(self, wanted: int) -> int:
        return 2 if self.quick else wanted
