"""Load tests that stock Locust runs: merges the raw records of all workers and writes the same result.

Workers (`--processes`, `--worker`) send their records to the master in messages of their own, once a second and once
more when the test ends. The master, or a single process, reads the server's statistics and writes the result. A
headless master fires `test_stop` before its workers stop, so it asks them for their last records and waits for these.
Locust's own statistics are fed from the records in batches: its event for every request costs as much as the request.

Stock Locust is the command line here: messages go to its log, and exit codes through `_fail` to its environment.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary, WeakSet

import gevent
from gevent.lock import RLock
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from modelwright.errors import ModelwrightError
from modelwright.loadtest.document import Measurement
from modelwright.loadtest.generator.context import UserContext, allow_many_connections
from modelwright.loadtest.generator.processes import Phase
from modelwright.loadtest.locust import options
from modelwright.loadtest.locust.records import Gathered, Sending
from modelwright.loadtest.locust.statistics import feed
from modelwright.loadtest.locust.timeline import Timeline, sleep_until
from modelwright.loadtest.measure.measurement import label_of, load_of, measurement, target_of
from modelwright.loadtest.measure.run import Findings
from modelwright.loadtest.measure.servers import is_on_this_machine
from modelwright.loadtest.payloads.workload import Workload
from modelwright.loadtest.report import output
from modelwright.triton.access import without_secrets

_log = logging.getLogger("modelwright")
_MESSAGE = "modelwright_rows"
_FINISH = "modelwright_finish"  # to workers: send the rest of your records
_STARTED = "modelwright_started"  # from workers: how many of its users have started
_LAST = "modelwright_last"  # from workers: all records are sent
_GIVE_UP = "modelwright_give_up"
_FLUSH_S = 1.0
_LAST_S = 5.0  # a worker that has not sent its last rows by then is lost
_POLL_S = 0.05
_DRAIN_S = 3.0  # for requests in flight, when a test ends
_FOLDER = Path(".modelwright") / "load"


class Reporting:
    """Collects and reports the tests of one Locust environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._sending: dict[str, Sending] = {}
        self._gathered: dict[str, Gathered] = {}
        self._timeline = Timeline(0, 0)
        self._is_spawned = False
        self.unstarted: WeakSet[Any] = WeakSet()  # users of this process that are made and have not started
        self._started: dict[str, int] = {}  # how many users, by worker
        self._starting: Any = None
        self._finished: set[str] = set()  # workers whose last rows are here
        self._is_written = self._has_given_up = False
        self._lock = RLock()
        self._flushing: Any = None
        if isinstance(environment.runner, MasterRunner):
            environment.runner.register_message(_MESSAGE, self._from_worker)
            environment.runner.register_message(_STARTED, self._worker_started)
            environment.runner.register_message(_LAST, self._worker_finished)
            environment.runner.register_message(_GIVE_UP, self._worker_gave_up)
        if isinstance(environment.runner, WorkerRunner):
            environment.runner.register_message(_FINISH, self._asked_to_finish)
        environment.events.test_start.add_listener(self._begin)
        environment.events.spawning_complete.add_listener(self._spawned)
        environment.events.test_stopping.add_listener(self._stopping)
        environment.events.test_stop.add_listener(self._end)
        allow_many_connections()

    def context(self, workload: Workload) -> UserContext:
        """The context that all users of a workload share in this process."""
        key = workload.as_json()
        with self._lock:
            if key not in self._sending:
                context = UserContext(workload)
                context.first_answer()
                self._sending[key] = Sending(context)
            return self._sending[key].context

    def give_up(self, error: ModelwrightError) -> None:
        """End the whole test, on all workers: every user would fail in the same way."""
        if self._has_given_up:
            return  # another user of this process has reported it
        self._has_given_up = True
        runner = self._environment.runner
        if isinstance(runner, WorkerRunner):
            runner.send_message(_GIVE_UP, str(error))
        else:
            self._end_test(str(error))

    def _worker_gave_up(self, environment: Environment, msg: Any, **_: Any) -> None:
        if not self._has_given_up:
            self._has_given_up = True
            self._end_test(msg.data)

    def _end_test(self, reason: str) -> None:
        """A headless process ends too. In a greenlet of its own, since the user that called this is stopped."""
        self._fail(reason)
        runner = self._environment.runner
        gevent.spawn(runner.quit if self._environment.parsed_options.headless else runner.stop)

    def _begin(self, **_: Any) -> None:
        given, runner = self._environment.parsed_options, self._environment.runner
        self._timeline = Timeline(given.warmup, getattr(given, "run_time", None) or 0)
        self._is_spawned = False
        self._started.clear()
        self._finished.clear()
        self._is_written = self._has_given_up = False
        self._sending.clear()
        self._gathered.clear()
        if not isinstance(runner, WorkerRunner):
            # Locust sends custom options to its workers, but not the number of all users.
            given.all_users = runner.target_user_count
        if not isinstance(runner, MasterRunner):
            self._flushing = gevent.spawn(self._flush_again)
        if self._starting is not None:
            self._starting.kill()
        self._starting = gevent.spawn(self._watch_start)

    def _spawned(self, **_: Any) -> None:
        """Locust has made all users. They have not started yet: the first of a process prepares its requests."""
        self._is_spawned = True

    def _watch_start(self) -> None:
        """Wait until all users of all processes have started, then take the server's statistics after the warm-up."""
        if isinstance(self._environment.runner, WorkerRunner):
            self._tell_started()
        while not self._all_have_started():
            gevent.sleep(_POLL_S)
        self._flush()
        self._timeline.users_have_started()
        sleep_until(self._timeline.start_ns)
        _log.info("all users have started, and the warm-up is over: measuring")
        for gathered in self._gathered.values():
            gathered.begin()

    def _tell_started(self) -> NoReturn:
        """Tell the master how many users of this worker have started, whenever that changes."""
        runner, told = self._environment.runner, 0
        while True:
            started = runner.user_count - len(self.unstarted)
            if started != told:
                self._flush()
                runner.send_message(_STARTED, started)
                told = started
            gevent.sleep(_POLL_S)

    def _all_have_started(self) -> bool:
        runner = self._environment.runner
        if not isinstance(runner, MasterRunner) or not self._is_spawned:
            return self._is_spawned and not self.unstarted
        started = [self._started.get(client.id) for client in runner.clients.all if client.state != "missing"]
        if len(started) < len(runner.clients):
            return None not in started  # nobody knows how many users a lost worker had
        return bool(sum(filter(None, started)) >= runner.target_user_count)

    def _worker_started(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._started[msg.node_id] = msg.data

    def _flush_again(self) -> None:
        while True:
            gevent.sleep(_FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        for key, sending in self._sending.items():
            data = sending.message(key)
            feed(self._environment.stats, sending.context, data["rows"], data["offset_ns"])
            if isinstance(self._environment.runner, WorkerRunner):
                self._environment.runner.send_message(_MESSAGE, data)
            else:
                self._gather("this process", data)

    def _from_worker(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._gather(msg.node_id, msg.data)

    def _gather(self, worker: str, data: dict[str, Any]) -> None:
        key = data["workload"]
        if key not in self._gathered:
            self._gathered[key] = Gathered(workload := Workload.from_json(key), target_of(workload, data))
        gathered = self._gathered[key]
        if worker not in gathered.clients:
            _log.info("first records of %s from %s", gathered.workload.model, worker)
        gathered.add(worker, data)

    def _stopping(self, **_: Any) -> None:
        if not isinstance(self._environment.runner, WorkerRunner):
            self._timeline.stop()
        if self._starting is not None:
            self._starting.kill()
        for gathered in self._gathered.values():
            gathered.end()
        self._drain()  # Locust kills users during a request: the slowest requests would be missing

    def _end(self, **_: Any) -> None:
        """Locust fires this again when a master's workers end."""
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            if not self._is_written:
                runner.send_message(_FINISH)
                self._await_workers()
        else:
            self._finish()
        if not isinstance(runner, WorkerRunner) and not self._is_written:
            self._is_written = True
            self._write()

    def _asked_to_finish(self, environment: Environment, msg: Any, **_: Any) -> None:
        if self._flushing is None:  # it has no test, or has sent everything
            environment.runner.send_message(_LAST)
        self._finish()

    def _finish(self) -> None:
        """Send the rest of the records. A worker's users are idle until Locust ends them."""
        if self._flushing is None:
            return
        self._drain()
        self._flushing.kill()
        self._flushing = None
        self._flush()
        for sending in self._sending.values():
            sending.lag.stop()
        if isinstance(self._environment.runner, WorkerRunner):
            self._environment.runner.send_message(_LAST)

    def _drain(self) -> None:
        """Begin no more requests, and wait for those in flight."""
        contexts = [sending.context for sending in self._sending.values()]
        for context in contexts:
            context.is_over = True
        deadline = time.monotonic() + _DRAIN_S
        while time.monotonic() < deadline and any(context.is_busy for context in contexts):
            gevent.sleep(0.005)

    def _worker_finished(self, environment: Environment, msg: Any, **_: Any) -> None:
        self._finished.add(msg.node_id)

    def _await_workers(self) -> None:
        deadline = time.monotonic() + _LAST_S
        clients = self._environment.runner.clients
        while time.monotonic() < deadline and any(self._is_awaited(client) for client in clients.all):
            gevent.sleep(0.05)

    def _is_awaited(self, client: Any) -> bool:
        return client.state != "missing" and client.id not in self._finished

    def _write(self) -> None:
        """Write the result. A problem with it must not hide Locust's own output."""
        if not self._gathered:
            self._fail("no request was recorded: no report")
            return
        try:
            findings = Findings(lambda _: None)
            for gathered in self._gathered.values():
                findings.add(self._measurement(gathered))
            models = sorted({measured.target.model for measured in findings.measurements})
            given = self._environment.parsed_options.output
            folder = output.folder_for(_FOLDER, Path(given) if given else None, "locust", models)
            command = ["locust", *without_secrets(sys.argv[1:])]
            is_local = any(is_on_this_machine(measured.target.url) for measured in findings.measurements)
            result = output.result_of("run", models, findings, command=command, is_local=is_local)
            _log.info("report: %s", output.write(result, folder))
            if not result.complete:
                self._fail("the result is not complete")
        except (ModelwrightError, OSError) as error:
            self._fail(f"no report: {error}")

    def _fail(self, message: str) -> None:
        """The one place that sets Locust's exit code."""
        _log.error("%s", message)
        self._environment.process_exit_code = 1

    def _measurement(self, gathered: Gathered) -> Measurement:
        given = self._environment.parsed_options
        start_ns, until_ns = self._timeline.measured_ns()
        shape = options.shape(given, given.all_users or 1, self._timeline.asked_s())
        load = load_of(shape, gathered.workload.batch, len(gathered.clients))
        phase = Phase(start_ns, until_ns, gathered.record, list(gathered.clients.values()))
        lost = [worker for worker in gathered.clients if self._is_lost(worker)]
        phase.complete = not lost
        phase.notes = [f"worker {worker} was lost; what it had sent is kept" for worker in lost]
        label = f"{gathered.workload.model} {label_of(load)}"
        return measurement(label, gathered.target, load, phase, gathered.server(), None)

    def _is_lost(self, worker: str) -> bool:
        runner = self._environment.runner
        return isinstance(runner, MasterRunner) and worker not in self._finished


_made: WeakKeyDictionary[Environment, Reporting] = WeakKeyDictionary()


def of(environment: Environment) -> Reporting:
    """The reporting of an environment. The first call must come before its first test."""
    if environment not in _made:
        _made[environment] = Reporting(environment)
    return _made[environment]
