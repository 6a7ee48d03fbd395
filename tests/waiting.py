"""Waiting for what other processes and threads do, on a machine that may be busy."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120  # long enough for a machine with ten times as much to do as it has cores


def wait_until(condition: Callable[[], object], what: str = "it") -> None:
    """Look until the condition holds. Fails when it still does not after `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S} s"
        time.sleep(0.05)
