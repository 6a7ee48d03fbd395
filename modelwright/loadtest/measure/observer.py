"""Watches a measurement: takes the server's statistics at both ends, and passes rows to the display meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelwright.loadtest.generator.processes import Watch
from modelwright.loadtest.measure.progress import MeasurementDisplay
from modelwright.loadtest.measure.server_side import Snapshot, snapshot
from modelwright.loadtest.measure.servers import ServerUnderTest
from modelwright.triton.client import Client

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Observer(Watch):
    """`before` and `after`: the server's statistics when the measured time began and ended."""

    def __init__(
        self, server: ServerUnderTest, client: Client, model: str, version: str, display: MeasurementDisplay
    ) -> None:
        self._server, self._client = server, client
        self._model, self._version = model, version
        self._display = display
        self.before: Snapshot | None = None
        self.after: Snapshot | None = None

    def measuring(self) -> None:
        self.before = self._snapshot()
        self._display.measuring()

    def measured(self) -> None:
        self.after = self._snapshot()

    def tick(self, rows: NDArray[Any], left_s: float) -> None:
        self._display.rows(rows, left_s)

    def over(self) -> str:
        return self._server.gone()

    def _snapshot(self) -> Snapshot | None:
        return snapshot(self._client, self._model, self._version, self._server.pid)
