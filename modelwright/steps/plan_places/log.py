"""What a plan builder prints: passed on line by line, and its end kept for the message when it dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from modelwright.errors import StepError

_KEPT_LINES = 12
_LONGEST_LINE = 400
_QUIET_S = 30.0  # a builder that says nothing is reported this often

Say = Callable[[str], None]


class BuildersLog:
    """Passes a builder's lines on to `say`, and says from time to time that it still works."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._started = self._last = clock()
        self._end: deque[str] = deque(maxlen=_KEPT_LINES)

    def line(self, text: str) -> None:
        """A line that the builder printed."""
        text = text.rstrip()[:_LONGEST_LINE]
        if text:
            self._end.append(text)
            self._tell(text)

    def note(self, text: str) -> None:
        """A line of our own, such as what a Job waits for."""
        self._tell(text)

    def quiet(self, doing: str) -> None:
        """Called while nothing happens: says so every half minute."""
        if self._clock() - self._last >= _QUIET_S:
            self._tell(f"{doing}: {self._clock() - self._started:.0f} s so far")

    @property
    def end(self) -> str:
        """The last lines."""
        return "\n".join(self._end)

    def died(self, what: str, hint: str) -> StepError:
        """The error for a builder that ended without a result, with the end of what it said."""
        said = "".join(f"\n    {line}" for line in self._end)
        return StepError(f"{what}; its log ends:{said}" if said else f"{what}; it printed nothing", hint)

    def _tell(self, text: str) -> None:
        self._last = self._clock()
        self._say(text)


@contextmanager
def guarded(
    cleanup: Sequence[str],
    command: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    left: Callable[[], None] = lambda: None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `cleanup` when the block ends or this process does, however it ends; and a command before that, if given.

    The process of the block is `guard.py`: its output is the command's, and so is its exit code; without a command it
    is that of `cleanup`, and `left` is called where it is not 0.
    """
    script = str(Path(__file__).with_name("guard.py"))
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", script, json.dumps(list(cleanup)), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if command else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(variables or {})},
        start_new_session=True,
    )
    assert guard.stdin is not None
    try:
        yield guard
    finally:
        guard.stdin.close()
        if guard.stdout:
            guard.stdout.close()
        if guard.wait() and not command:
            left()
