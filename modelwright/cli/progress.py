"""How a build goes, for people: one live display on a terminal, plain lines elsewhere, nothing for machines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from modelwright.build.listener import Listener
from modelwright.cli.terminal import say
from modelwright.errors import ModelwrightError
from modelwright.text import counted, printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from modelwright.kinds.step import Step


_BETWEEN_LINES_S = 10  # of one step, where there is no live display


def listener_for(as_data: bool) -> Silent:
    """Who tells how a build goes: on standard error, so that standard output holds the result alone."""
    if as_data:
        return Silent()
    return Display() if sys.stderr.isatty() else Lines()


class Silent(Listener):
    """Shows nothing; the base of the others, and what `--json` uses."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(Silent):
    """A line for everything that starts or ends, and now and then for what runs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}  # step → when a line said something of it

    def waiting(self, holder: str) -> None:
        self._line(f"waiting for {holder}")

    def locking(self, text: str) -> None:
        self._line(text)

    def recording(self, models: int) -> None:
        self._line(f"recording {counted(models, 'model')} in MLflow")

    def planned(self, steps: int, cached: int) -> None:
        if cached < steps:
            self._line(f"{steps} steps, {cached} up to date")

    def started(self, step: Step, reason: str) -> None:
        self._told[step.id] = self._clock()
        self._line(f"{step.model} {step.name}: {reason}")

    def progress(self, step: Step, text: str) -> None:
        now = self._clock()
        if now - self._told.get(step.id, now) >= _BETWEEN_LINES_S:
            self._told[step.id] = now
            self._line(f"{step.model} {step.name}: {text}")

    def finished(self, step: Step, duration_s: float) -> None:
        self._line(f"{step.model} {step.name}: done in {duration_s:.1f} s")

    def failed(self, step: Step, error: ModelwrightError, log: Path) -> None:
        self._line(f"{step.model} {step.name}: failed")

    def _line(self, text: str) -> None:
        say(text, err=True)


class Display(Lines):
    """What runs now and for how long, below the lines of what is done."""

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[tuple[str, str], tuple[float, str]] = {}  # since when, and why or how far
        self._total = self._done = self._cached = 0
        self._started = time.monotonic()
        self._live: Live | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._running.clear()
            self._live.stop()

    def planned(self, steps: int, cached: int) -> None:
        self._total, self._cached = steps, cached
        if cached < steps:
            from rich.live import Live

            from modelwright.cli.terminal import console

            where = console(stderr=True)
            self._live = Live(get_renderable=self._render, console=where, transient=True, refresh_per_second=8)
            self._live.start()

    def started(self, step: Step, reason: str) -> None:
        self._running[step.id] = (time.monotonic(), reason)

    def progress(self, step: Step, text: str) -> None:
        if step.id in self._running:
            self._running[step.id] = (self._running[step.id][0], text)

    def finished(self, step: Step, duration_s: float) -> None:
        self._running.pop(step.id, None)
        self._done += 1
        self._line(f"✓ {step.model} {step.name}  {duration_s:.1f} s")

    def failed(self, step: Step, error: ModelwrightError, log: Path) -> None:
        self._running.pop(step.id, None)
        self._done += 1
        self._line(f"✗ {step.model} {step.name}")

    def _line(self, text: str) -> None:
        if self._live:
            self._live.console.print(printable(text), soft_wrap=True)  # above what is redrawn
        else:
            super()._line(text)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.text import Text

        now = time.monotonic()
        rows: list[RenderableType] = [
            Spinner("dots", Text(f"{model} {name}  {now - since:.0f} s  {reason}", overflow="ellipsis", no_wrap=True))
            for (model, name), (since, reason) in self._running.items()
        ]
        left = self._total - self._cached - self._done - len(self._running)
        summary = f"{self._done} done, {len(self._running)} running, {left} to come, {self._cached} up to date"
        return Group(*rows, Text(f"{summary}  {now - self._started:.0f} s", style="dim"))
