"""What a step says of itself while it runs: `epoch 3 of 15, 12 s left`. Whoever runs the step decides who hears it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str], None]


def _nobody(text: str) -> None: ...


_hearer: Tell = _nobody


def tell(text: str) -> None:
    """Say how far the step of this process is, in a few words that replace the last ones."""
    _hearer(text)


def current() -> Tell:
    """Who hears it now."""
    return _hearer


@contextmanager
def told_to(hearer: Tell) -> Iterator[None]:
    """Send what is told in the block to a function."""
    global _hearer
    before, _hearer = _hearer, hearer
    try:
        yield
    finally:
        _hearer = before
