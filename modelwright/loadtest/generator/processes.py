"""Generator processes, seen from the command line: starts them, sends them orders, merges their records.

This side does not use gevent: it watches, reads the server's statistics, and survives the end of a generator process.
Records are in files until a phase is over, so what a process had written is kept when it is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from modelwright.errors import LoadError
from modelwright.loadtest.generator.recording import RECORD, FailureKind, Record
from modelwright.loadtest.payloads.workload import LoadShape, Workload

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAD_S = 0.05  # from the orders to the common start
_TICK_S = 0.1
_LATE_S = 5.0  # beyond a request's timeout; then a process that does not report is given up
_START_S = 60.0
_WRITTEN_S = 0.5  # time for a process to write the failures that a dead server caused


@dataclass
class Phase:
    """The record of one load shape. Times are of the monotonic clock; the warm-up is before `start_ns`."""

    start_ns: int
    until_ns: int
    record: Record
    clients: list[dict[str, Any]] = field(default_factory=list)  # of the processes that reported
    complete: bool = True
    interrupted: bool = False  # by Ctrl-C
    notes: list[str] = field(default_factory=list)

    def measured(self) -> NDArray[Any]:
        """The rows of requests that were to start after the warm-up and before the end."""
        rows = self.record.rows()
        return rows[(rows["intended_ns"] >= self.start_ns) & (rows["intended_ns"] < self.until_ns)]


class Watch:
    """Called during a phase; the methods do nothing by default."""

    def measuring(self) -> None:
        """The warm-up is over."""

    def tick(self, rows: NDArray[Any], left_s: float) -> None:
        """Rows that have arrived since the last time."""

    def measured(self) -> None:
        """The measured time is over; the last answers may still be on their way."""

    def over(self) -> str:
        """Why the phase must end now; "" to go on."""
        return ""


class _GeneratorProcess:
    """One generator process."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number = number
        self._rows = folder / f"rows-{number}.bin"
        self.data = bytearray()
        self.failures: list[FailureKind] = []
        self._log = (folder / f"generator-{number}.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "modelwright.loadtest.generator.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C reaches the command line only, which still reads the record
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self._answers: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                if line.endswith(b"\n"):  # else the process died while it wrote
                    self._answers.put(json.loads(line))
        self._answers.put(None)

    def tell(self, data: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(data).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended; `answer` reports it

    def answer(self, timeout_s: float = 0) -> dict[str, Any] | None:
        """Its next answer; None if the process has ended. Raises queue.Empty without an answer in that time."""
        while True:
            answer = self._answers.get(timeout=timeout_s) if timeout_s else self._answers.get_nowait()
            if answer is None:
                self._answers.put(None)  # for the next phase
                return None
            if answer["event"] != "failure":
                return answer
            self.failures.append(FailureKind(answer["kind"], answer["message"]))

    def new_rows_file(self) -> str:
        """Empty the file for rows; its path."""
        self._rows.write_bytes(b"")
        self.data, self.failures = bytearray(), []
        return str(self._rows)

    def new_rows(self) -> bytes:
        """Whole rows that it has written since the last call; `data` has them all."""
        with self._rows.open("rb") as file:
            file.seek(len(self.data))
            fresh = file.read()
        fresh = fresh[: len(fresh) - len(fresh) % RECORD.itemsize]
        self.data += fresh
        return fresh

    def stderr_tail(self) -> str:
        self._log.flush()
        lines = Path(self._log.name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.wait()}"

    def stop(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # an order that the process never read
            self._process.stdin.close()
        try:
            self._process.wait(0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        self._log.close()


class GeneratorProcesses:
    """Generator processes, ready to send any of `workloads`. Raises LoadError if one does not fit the server."""

    def __init__(self, workloads: Mapping[str, Workload], processes: int, folder: Path) -> None:
        self._workloads = workloads
        self._processes = [_GeneratorProcess(number, folder) for number in range(processes)]
        self.targets: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> GeneratorProcesses:
        try:
            targets = {name: asdict(workload) for name, workload in self._workloads.items()}
            for process in self._processes:
                process.tell({"targets": targets, "part": process.number, "parts": len(self._processes)})
            for process in self._processes:
                self.targets = _ready(process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        for process in self._processes:
            process.stop()

    def run(self, target: str, shape: LoadShape, watch: Watch, seed: int = 7, url: str = "") -> Phase:
        """One phase. Ctrl-C ends it early: the record so far is kept, and `complete` is false.

        With `url`, the same requests go to another server, whose answers are not checked.
        """
        begin_ns = time.monotonic_ns() + round(_LEAD_S * 1e9)
        start_ns = begin_ns + round(shape.warmup_s * 1e9)
        until_ns = start_ns + round(shape.duration_s * 1e9)
        phase = Phase(start_ns, until_ns, Record())
        order = {"target": target, "shape": asdict(shape), "start_ns": begin_ns, "seed": seed, "url": url}
        for process in self._processes:
            process.tell({**order, "rows": process.new_rows_file()})
        following = _Following(phase, list(self._processes), watch)
        try:
            following.follow(until_ns + round((self._workloads[target].timeout_s + _LATE_S) * 1e9))
        except KeyboardInterrupt:
            phase.interrupted = True
            following.cut_short("stopped by Ctrl-C")
        return phase


@dataclass
class _Following:
    """Follows a phase while it lasts: reads rows, calls the watch, notices processes that end."""

    phase: Phase
    running: list[_GeneratorProcess]
    watch: Watch
    _is_measuring: bool = False
    _is_measured: bool = False

    def follow(self, given_up_ns: int) -> None:
        while self.running:
            now_ns = time.monotonic_ns()
            self._time_line(now_ns)
            reason = self.watch.over()
            if reason or now_ns > given_up_ns:
                self.cut_short(reason or "a generator process does not answer")
                return
            self._read_rows()
            for process in list(self.running):
                self._read_answer(process)
            if self.running:
                self._sleep()

    def _time_line(self, now_ns: int) -> None:
        if not self._is_measuring and now_ns >= self.phase.start_ns:
            self._is_measuring = True
            self.watch.measuring()
        if not self._is_measured and now_ns >= self.phase.until_ns:
            self._is_measured = True
            self.watch.measured()

    def _sleep(self) -> None:
        """Until the next event of the time line, at most a tick."""
        event_ns = self.phase.until_ns if self._is_measuring else self.phase.start_ns
        left_s = (event_ns - time.monotonic_ns()) / 1e9
        time.sleep(min(_TICK_S, left_s) if left_s > 0 else _TICK_S / 10)

    def _read_rows(self) -> None:
        fresh = b"".join(process.new_rows() for process in self.running)
        if fresh:
            self.watch.tick(np.frombuffer(fresh, dtype=RECORD), (self.phase.until_ns - time.monotonic_ns()) / 1e9)

    def _read_answer(self, process: _GeneratorProcess) -> None:
        with contextlib.suppress(Empty):
            answer = process.answer()
            self.running.remove(process)
            if answer is None:
                self.phase.complete = False
                lost = f"generator process {process.number} was lost: {process.stderr_tail()}"
                self.phase.notes.append(f"{lost}; what it had recorded is kept")
            else:
                self.phase.clients.append(answer["client"])
            self._keep(process, answer["checked"] if answer else 0)

    def _keep(self, process: _GeneratorProcess, checked: int) -> None:
        process.new_rows()
        rows = bytes(process.data)
        most = int(np.frombuffer(rows, dtype=RECORD)["code"].max(initial=0))
        unnamed = [FailureKind("unknown", "its process was lost") for _ in range(len(process.failures), most)]
        self.phase.record.add(rows, process.failures + unnamed, checked)

    def cut_short(self, reason: str) -> None:
        """Keep the record so far. The processes cannot be used again: they go on until the phase would have ended."""
        self.phase.complete = False
        self.phase.notes.append(reason)
        self.phase.until_ns = min(self.phase.until_ns, time.monotonic_ns())
        time.sleep(_WRITTEN_S)
        for process in self.running:
            with contextlib.suppress(Empty):
                process.answer()
            self._keep(process, 0)
        self.running.clear()


def _ready(process: _GeneratorProcess) -> dict[str, dict[str, Any]]:
    try:
        answer = process.answer(_START_S)
    except Empty:
        raise LoadError(f"a generator process did not start within {_START_S:g} s") from None
    if answer is None:
        raise LoadError(f"a generator process ended while it was starting: {process.stderr_tail()}")
    if answer["event"] == "error":
        raise LoadError(answer["message"], answer["hint"])
    targets: dict[str, dict[str, Any]] = answer["targets"]
    return targets
