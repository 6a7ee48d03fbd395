"""Load tests that stock Locust runs: the raw records of all workers come together into the same result.

Workers (`--processes`, `--worker`) send their records to the master in messages of their own, once a second and when
the test stops, before they report that they have. The master, or a single process, asks the server for its statistics
and writes the result. Locust's own statistics are fed from the records in batches: its event for every request costs
as much as the request.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import gevent
from gevent.lock import RLock
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest import options, output
from loadtest.calls import address_of
from loadtest.fleet import Phase
from loadtest.locuststats import feed
from loadtest.measure import label_of, load_of, measurement
from loadtest.recording import FailureKind, Record, clock_offset_ns
from loadtest.result import Measurement, Target
from loadtest.run import Findings
from loadtest.serverside import Snapshot, difference, snapshot
from loadtest.session import LoopLag, Session, allow_many_connections
from loadtest.workload import Workload
from modelwright.client import connect
from modelwright.errors import ModelwrightError, ServerError

_log = logging.getLogger("modelwright")
_MESSAGE = "modelwright_rows"
_FLUSH_S = 1.0
_FOLDER = Path(".modelwright") / "load"


@dataclass
class _Sending:
    """This process's session for one workload, and its own usage since it was made."""

    session: Session
    lag: LoopLag = field(default_factory=LoopLag)
    cpu_s: float = field(default_factory=time.process_time)
    began_s: float = field(default_factory=time.monotonic)

    def message(self, key: str) -> dict[str, Any]:
        """What has happened since the last one."""
        recorder, session = self.session.recorder, self.session
        checked, recorder.checked = recorder.checked, 0
        return {
            "workload": key,
            "rows": recorder.take(),
            "failures": [asdict(failure) for failure in recorder.failures],
            "checked": checked,
            "offset_ns": clock_offset_ns(),
            "client": self._usage(),
            "version": session.signature.version,
            "payload": session.payloads.description,
            "payload_bytes": session.request_bytes,
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
class _Gathered:
    """What the process that writes the result has of one workload. Times are of the day."""

    workload: Workload
    target: Target
    record: Record = field(default_factory=Record)
    clients: dict[str, dict[str, Any]] = field(default_factory=dict)  # by worker
    before: Snapshot | None = None

    def snapshot(self) -> Snapshot | None:
        try:
            with connect(self.workload.url, timeout_s=10) as client:
                return snapshot(client, self.workload.model, self.target.version, None)
        except ServerError:
            return None


class Reporting:
    """Of one Locust environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._sending: dict[str, _Sending] = {}
        self._gathered: dict[str, _Gathered] = {}
        self._began_ns = self._ended_ns = 0
        self._lock = RLock()
        self._flushing: Any = None
        if isinstance(environment.runner, MasterRunner):
            environment.runner.register_message(_MESSAGE, self._from_worker)
        environment.events.test_start.add_listener(self._begin)
        environment.events.test_stopping.add_listener(self._stopping)
        environment.events.test_stop.add_listener(self._end)
        allow_many_connections()

    def session(self, workload: Workload) -> Session:
        """The one that all users of a workload share in this process."""
        key = workload.as_json()
        with self._lock:
            if key not in self._sending:
                session = Session(workload)
                session.first_answer()
                self._sending[key] = _Sending(session)
            return self._sending[key].session

    def give_up(self, error: ModelwrightError) -> None:
        """End the whole test: no user could do any better."""
        _log.error("%s", error)
        self._environment.process_exit_code = 1
        self._environment.runner.quit()

    def _begin(self, **_: Any) -> None:
        self._began_ns = time.time_ns()
        self._sending.clear()
        self._gathered.clear()
        if not isinstance(self._environment.runner, MasterRunner):
            self._flushing = gevent.spawn(self._flush_again)

    def _flush_again(self) -> None:
        while True:
            gevent.sleep(_FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        for key, sending in self._sending.items():
            data = sending.message(key)
            feed(self._environment.stats, sending.session, data["rows"], data["offset_ns"])
            if isinstance(self._environment.runner, WorkerRunner):
                self._environment.runner.send_message(_MESSAGE, data)
            else:
                self._gather("this process", data)

    def _from_worker(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._gather(msg.node_id, msg.data)

    def _gather(self, worker: str, data: dict[str, Any]) -> None:
        key = data["workload"]
        if key not in self._gathered:
            self._gathered[key] = _Gathered(Workload.from_json(key), _target(key, data))
            gevent.spawn_later(self._environment.parsed_options.warmup, self._take_before, key)
        gathered = self._gathered[key]
        failures = [FailureKind(**item) for item in data["failures"]]
        gathered.record.add(data["rows"], failures, data["checked"], data["offset_ns"])
        gathered.clients[worker] = data["client"]

    def _take_before(self, key: str) -> None:
        if key in self._gathered:
            self._gathered[key].before = self._gathered[key].snapshot()

    def _stopping(self, **_: Any) -> None:
        self._ended_ns = time.time_ns()  # users are stopped one by one from here on

    def _end(self, **_: Any) -> None:
        if self._flushing is not None:
            self._flushing.kill()
            self._flush()
            for sending in self._sending.values():
                sending.lag.stop()
        if not isinstance(self._environment.runner, WorkerRunner):
            self._write()

    def _write(self) -> None:
        """The result. A problem with it must not hide what Locust has to say."""
        if not self._gathered:
            _log.error("no request was recorded: no report")
            return
        try:
            findings = Findings(lambda _: None)
            for gathered in self._gathered.values():
                findings.add(self._measurement(gathered))
            models = sorted({measured.target.model for measured in findings.measurements})
            given = self._environment.parsed_options.output
            folder = output.folder_for(_FOLDER, Path(given) if given else None, "locust", models)
            result = output.result_of("run", models, findings, is_local=False)
            _log.info("report: %s", output.write(result, folder))
        except (ModelwrightError, OSError) as error:
            _log.error("no report: %s", error)

    def _measurement(self, gathered: _Gathered) -> Measurement:
        given, runner = self._environment.parsed_options, self._environment.runner
        users = runner.target_user_count or given.users or 1
        start_ns = self._began_ns + round(given.warmup * 1e9)
        shape = options.shape(given, users, max(self._ended_ns - start_ns, 0) / 1e9)
        load = load_of(shape, gathered.workload.batch, len(gathered.clients))
        phase = Phase(start_ns, max(self._ended_ns, start_ns), gathered.record, list(gathered.clients.values()))
        lost = [worker for worker in gathered.clients if self._is_lost(worker)]
        phase.complete = not lost
        phase.notes = [f"worker {worker} was lost; what it had sent is kept" for worker in lost]
        label = f"{gathered.workload.model} {label_of(load)}"
        return measurement(label, gathered.target, load, phase, difference(gathered.before, gathered.snapshot()), None)

    def _is_lost(self, worker: str) -> bool:
        runner = self._environment.runner
        return isinstance(runner, MasterRunner) and (
            worker not in runner.clients or runner.clients[worker].state == "missing"
        )


def _target(key: str, data: dict[str, Any]) -> Target:
    workload = Workload.from_json(key)
    return Target(
        url=workload.url,
        protocol=address_of(workload.url).protocol,
        model=workload.model,
        version=data["version"],
        api=workload.api,
        payload=data["payload"],
        payload_bytes=data["payload_bytes"],
    )


_made: WeakKeyDictionary[Environment, Reporting] = WeakKeyDictionary()


def of(environment: Environment) -> Reporting:
    """The reporting of an environment; made when it is first asked for, which must be before its first test."""
    if environment not in _made:
        _made[environment] = Reporting(environment)
    return _made[environment]
