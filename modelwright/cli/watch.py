"""How a change goes, server by server: a table that is redrawn on a terminal, lines elsewhere. On standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelwright.cli.terminal import say
from modelwright.fleet.watcher import Stage, Watcher
from modelwright.text import printable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_STYLES: dict[Stage, str] = {"serves it": "green", "put back": "yellow", "failed": "red", "not put back": "red"}


@contextlib.contextmanager
def watcher_for(*, watch: bool, as_data: bool) -> Iterator[Watcher]:
    """Who is told. Without `watch`, only what concerns the whole is shown; with --json, nothing."""
    if as_data:
        yield Watcher()
    elif watch and sys.stderr.isatty():
        with _Table() as table:
            yield table
    else:
        yield _Lines() if watch else _Remarks()


class _Remarks(Watcher):
    def say(self, text: str) -> None:
        say(text, err=True)


class _Lines(_Remarks):
    """A line for each stage of each server."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def server(self, url: str, stage: Stage, text: str = "") -> None:
        taken_s = time.monotonic() - self._started
        say(f"{taken_s:6.1f} s  {url}  {stage}" + (f": {text}" if text else ""), err=True)


class _Table(_Remarks):
    """A row a server, with how long it is in its stage."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[Stage, str, float]] = {}
        self._live: Live | None = None

    def __enter__(self) -> _Table:
        from rich.live import Live

        from modelwright.cli.terminal import console

        self._live = Live(get_renderable=self._render, console=console(stderr=True), refresh_per_second=4)
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def server(self, url: str, stage: Stage, text: str = "") -> None:
        before = self._rows.get(url)
        since = before[2] if before and before[0] == stage else time.monotonic()
        self._rows[url] = (stage, text, since)

    def say(self, text: str) -> None:
        if self._live:
            self._live.console.print(printable(text), soft_wrap=True)

    def _render(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name in ("server", "", "for", ""):
            table.add_column(name, no_wrap=name != "")
        for url, (stage, text, since) in self._rows.items():
            style = _STYLES.get(stage, "")
            taken = "" if stage in _STYLES else f"{time.monotonic() - since:.0f} s"
            table.add_row(url, Text(stage, style=style), taken, Text(text))
        return table
