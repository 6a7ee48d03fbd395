"""How a measurement goes, while it lasts: throughput and percentiles of the last second or so."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.loadtest.generator.processes import Watch
from modelwright.loadtest.measure.server_side import Snapshot, snapshot
from modelwright.loadtest.measure.servers import Server
from modelwright.triton.client import Client

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

_KEEP_NS = 1_000_000_000
_EVERY_S = 0.25


class Observer(Watch):
    """Takes the server's snapshots at both ends of a measurement, and shows what happens between them."""

    def __init__(self, server: Server, client: Client, model: str, version: str, show: Show) -> None:
        self._server, self._client = server, client
        self._model, self._version = model, version
        self._show = show
        self.before: Snapshot | None = None
        self.after: Snapshot | None = None

    def measuring(self) -> None:
        self.before = self._snapshot()
        self._show.warm()

    def measured(self) -> None:
        self.after = self._snapshot()

    def tick(self, rows: NDArray[Any], left_s: float) -> None:
        self._show.rows(rows, left_s)

    def over(self) -> str:
        return self._server.gone()

    def _snapshot(self) -> Snapshot | None:
        return snapshot(self._client, self._model, self._version, self._server.pid)


class Show:
    """One line that says how it goes: rewritten in place on a terminal, silent elsewhere."""

    def __init__(self, console: Console, label: str) -> None:
        self._status = console.status(f"{label}: warming up") if console.is_terminal else None
        self._label = label
        self._recent: deque[NDArray[Any]] = deque()
        self._is_warm = False
        self._failed = 0
        self._shown_s = 0.0

    def __enter__(self) -> Show:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def warm(self) -> None:
        self._is_warm = True

    def rows(self, rows: NDArray[Any], left_s: float) -> None:
        if self._status is None:
            return
        self._failed += int((rows["code"] != 0).sum())
        self._recent.append(rows)
        newest = int(rows["end_ns"].max())
        while len(self._recent) > 1 and int(self._recent[0]["end_ns"].max()) < newest - _KEEP_NS:
            self._recent.popleft()
        if time.monotonic() - self._shown_s >= _EVERY_S:
            self._shown_s = time.monotonic()
            self._status.update(f"{self._label}: {self._words(newest, left_s)}")

    def _words(self, newest: int, left_s: float) -> str:
        rows = np.concatenate(self._recent)
        rows = rows[rows["end_ns"] > newest - _KEEP_NS]
        good = rows[rows["code"] == 0]
        span_s = max(newest - int(rows["end_ns"].min()), 1) * 1e-9
        words = [f"{len(good) / span_s:,.0f} req/s"]
        if len(good):
            p50, p99 = np.percentile(good["end_ns"] - good["start_ns"], [50, 99]) * 1e-6
            words.append(f"p50 {p50:.2f} ms  p99 {p99:.2f} ms")
        if self._failed:
            words.append(f"[red]{self._failed:,} failed[/red]")
        words.append(f"{max(left_s, 0):.0f} s left" if self._is_warm else "warming up")
        return "  ".join(words)
