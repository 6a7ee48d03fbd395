"""Load tests on the terminal while they run: throughput and percentiles of the last second or so."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.loadtest.measure.progress import MeasurementDisplay, Progress
from modelwright.text import milliseconds, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

_KEEP_NS = 1_000_000_000
_EVERY_S = 0.25


class ConsoleProgress(Progress):
    """Lines on a console, and while a measurement lasts one that is rewritten in place, if it is a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        self._console.print(printable(text), style="dim", soft_wrap=True)

    @contextlib.contextmanager
    def display(self, label: str) -> Iterator[MeasurementDisplay]:
        if not self._console.is_terminal:
            yield MeasurementDisplay()
            return
        with self._console.status(_text(f"{label}: warming up")) as status:
            yield _StatusLine(status, label)


class _StatusLine(MeasurementDisplay):
    def __init__(self, status: Status, label: str) -> None:
        self._status, self._label = status, label
        self._recent: deque[NDArray[Any]] = deque()
        self._is_warm = False
        self._failed = 0
        self._shown_s = 0.0

    def measuring(self) -> None:
        self._is_warm = True

    def rows(self, rows: NDArray[Any], left_s: float) -> None:
        self._failed += int((rows["code"] != 0).sum())
        self._recent.append(rows)
        newest = int(rows["end_ns"].max())
        while len(self._recent) > 1 and int(self._recent[0]["end_ns"].max()) < newest - _KEEP_NS:
            self._recent.popleft()
        if time.monotonic() - self._shown_s >= _EVERY_S:
            self._shown_s = time.monotonic()
            self._status.update(_text(f"{self._label}: {self._words(newest, left_s)}", self._failed))

    def _words(self, newest: int, left_s: float) -> str:
        rows = np.concatenate(self._recent)
        rows = rows[rows["end_ns"] > newest - _KEEP_NS]
        good = rows[rows["code"] == 0]
        span_s = max(newest - int(rows["end_ns"].min()), 1) * 1e-9
        words = [f"{len(good) / span_s:,.0f} req/s"]
        if len(good):
            p50, p99 = np.percentile(good["end_ns"] - good["start_ns"], [50, 99]) * 1e-6
            words.append(f"p50 {milliseconds(p50)}  p99 {milliseconds(p99)}")
        if self._failed:
            words.append(_failures(self._failed))
        words.append(f"{max(left_s, 0):.0f} s left" if self._is_warm else "warming up")
        return "  ".join(words)


def _failures(count: int) -> str:
    return f"{count:,} failed"


def _text(words: str, failed: int = 0) -> Text:
    """Names in a line may hold brackets, so it is no markup."""
    from rich.text import Text

    text = Text(printable(words))
    if failed:
        text.highlight_words([_failures(failed)], "red")
    return text
