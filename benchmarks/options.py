"""How much to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """`quick` looks whether a benchmark runs at all; its figures mean little. `perf_analyzer`: the peer's binary."""

    quick: bool = False
    perf_analyzer: Path | None = None

    def rounds(self, wanted: int) -> int:
        return 2 if self.quick else wanted
