"""What a benchmark gives back: a section of Markdown, the same on a terminal and in the README."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """One benchmark's result: what was measured and how, in `method`; `notes` say what its numbers come to."""

    title: str
    method: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        parts = [f"### {self.title}", self.method, _table([self.header, *self.rows])]
        parts += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n\n".join(parts)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Cells padded to their column, so that the source reads as well as the page. The first column is text."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    rule = [f"{'-' * (width + 1)}{':' if index else '-'}" for index, width in enumerate(widths)]
    lines.insert(1, f"|{'|'.join(rule)}|")
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        cell.ljust(width) if index == 0 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"| {' | '.join(cells)} |"


def machine() -> str:
    """Where and when: enough to know what the figures can be compared with, and no name of a host."""
    cores = len(os.sched_getaffinity(0))
    date = datetime.now(timezone.utc).date().isoformat()
    return f"{date}; {cores} cores of {_cpu()}, {_memory_gib():.0f} GiB; Linux, Python {platform.python_version()}"


def load() -> str:
    """The load average: what else this machine did while it measured."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def _cpu() -> str:
    """The processor's name and feature class: hypervisors hide the exact model."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    name = fields.get("model name", platform.processor() or platform.machine())
    flags = fields.get("flags", "").split()
    best = next((flag for flag in ("amx_bf16", "avx512_vnni", "avx512f", "avx2") if flag in flags), "")
    return f"{name}, {best}" if best else name


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
