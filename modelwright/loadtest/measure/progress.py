"""Progress of load tests, during measurements and between them. The command line shows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class MeasurementDisplay:
    """One measurement while it lasts; shows nothing by default."""

    def measuring(self) -> None:
        """The warm-up is over."""

    def rows(self, rows: NDArray[Any], left_s: float) -> None:
        """Requests that ended since the last call (recording.RECORD), and the seconds that are left."""


class Progress:
    """Silent by default."""

    def say(self, text: str) -> None:
        """One line of information."""

    @contextlib.contextmanager
    def display(self, label: str) -> Iterator[MeasurementDisplay]:
        """For one measurement of this label."""
        yield MeasurementDisplay()
