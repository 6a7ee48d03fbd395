"""The records of a Locust test: what each process sends, and what the one that writes the result has gathered."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from modelwright.errors import ServerError
from modelwright.loadtest.document import ServerStatistics, Target
from modelwright.loadtest.generator.context import LoopLag, UserContext
from modelwright.loadtest.generator.recording import FailureKind, Record, clock_offset_ns
from modelwright.loadtest.measure.server_side import Snapshot, difference, snapshot
from modelwright.loadtest.payloads.workload import Workload
from modelwright.triton.client import connect


@dataclass
class Sending:
    """This process's context for one workload, and its usage since then."""

    context: UserContext
    lag: LoopLag = field(default_factory=LoopLag)
    cpu_s: float = field(default_factory=time.process_time)
    began_s: float = field(default_factory=time.monotonic)

    def message(self, key: str) -> dict[str, Any]:
        """The records since the last message."""
        recorder, context = self.context.recorder, self.context
        checked, recorder.checked = recorder.checked, 0
        return {
            "workload": key,
            "rows": recorder.take(),
            "failures": [asdict(failure) for failure in recorder.failures],
            "checked": checked,
            "offset_ns": clock_offset_ns(),
            "client": self._usage(),
            "version": context.interface.version,
            "payload": context.payloads.description,
            "payload_bytes": context.request_bytes,
        }

    def _usage(self) -> dict[str, Any]:
        import psutil

        return {
            "cpu_s": time.process_time() - self.cpu_s,
            "wall_s": time.monotonic() - self.began_s,
            "memory_bytes": psutil.Process().memory_info().rss,
            "loop_lag_p99_ms": self.lag.p99_ms(),
        }


@dataclass
class Gathered:
    """The merged records of one workload, in the process that writes the result. Times are times of day."""

    workload: Workload
    target: Target
    record: Record = field(default_factory=Record)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)  # by worker
    _before: Snapshot | None = None
    _after: Snapshot | None = None

    def add(self, worker: str, data: dict[str, Any]) -> None:
        """A message of `Sending`."""
        failures = [FailureKind(**item) for item in data["failures"]]
        self.record.add(data["rows"], failures, data["checked"], data["offset_ns"])
        self.clients[worker] = data["client"]

    def begin(self) -> None:
        """The measured time begins."""
        self._before = self._snapshot()

    def end(self) -> None:
        self._after = self._snapshot()

    def server(self) -> ServerStatistics | None:
        """The server's statistics over the measured time."""
        return difference(self._before, self._after)

    def _snapshot(self) -> Snapshot | None:
        try:
            with connect(self.workload.url, timeout_s=10, access=self.workload.access) as client:
                return snapshot(client, self.workload.model, self.target.version, None)
        except ServerError:
            return None
