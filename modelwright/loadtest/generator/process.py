"""A generator process: sends requests as lines of JSON order it to. `processes` starts it and reads its answers.

    → {"targets": {"A": {…workload…}, "B": {…}}, "part": 0, "parts": 2}
    ← {"event": "ready", "targets": {"A": {"payload": "golden samples, …", "payload_bytes": 700, …}}}
    → {"target": "A", "shape": {…}, "start_ns": …, "rows": "path"}      (times of the monotonic clock)
    ← {"event": "failure", "kind": "HTTP 400", "message": "…"}          (the next number in the record's codes)
    ← {"event": "done", "client": {…}, "checked": 20}

Rows of the record are appended to `rows` while the phase lasts, so they are kept when the process is lost. It ends when
its standard input is closed. Each phase is a run of Locust's local runner, with the users that `locust -f` has.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()  # before any other import binds a function that blocks

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import gevent
from gevent.fileobject import FileObject
from locust import User, task
from locust.env import Environment
from locust.runners import LocalRunner

from modelwright.errors import ModelwrightError
from modelwright.loadtest.generator.context import LoopLag, Pace, UserContext, allow_many_connections
from modelwright.loadtest.generator.recording import Recorder
from modelwright.loadtest.payloads.workload import LoadShape, Workload

_FLUSH_S = 0.25


class PhaseUser(User):  # type: ignore[misc]
    """One request in flight, or the source of an open loop, until the phase ends. Then idle until Locust stops it."""

    abstract = True
    context: UserContext
    pace: Pace

    def on_start(self) -> None:
        self.caller = self.context.caller()

    def on_stop(self) -> None:
        self.caller.close()

    @task  # type: ignore[untyped-decorator]
    def infer(self) -> None:
        if self.pace.shape.is_open:
            self.context.open_loop(self.pace)
        else:
            self.context.closed_loop(self.caller, self.pace.until_ns)
        gevent.sleep(3600)


class LocustTarget:
    """A workload with a Locust environment of its own."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.context = UserContext(workload)
        self.users: type[PhaseUser] = type("Users", (PhaseUser,), {"context": self.context})
        self.runner: LocalRunner = Environment(user_classes=[self.users]).create_local_runner()

    def described(self) -> dict[str, Any]:
        items = self.context.payloads.items
        return {
            "payload": self.context.payloads.description,
            "distinct": len(items),
            "payload_bytes": self.context.request_bytes,
            "notes": self.context.payloads.notes,
            "version": self.context.interface.version,
            "answer": self.context.first_answer(),
        }

    def run(self, pace: Pace, url: str, rows: BinaryIO, say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """One phase; the usage of this process meanwhile. The record goes to `rows`."""
        context = self.context
        context.recorder = Recorder()
        writer = _Writer(context.recorder, rows, say)
        context.rewind(pace.seed)
        context.aim(url)
        self.users.pace = pace
        usage = gevent.spawn(_usage, pace)
        users = 1 if pace.shape.is_open else _share(pace.shape.concurrency or 1, pace.part, pace.parts)
        _sleep_until(pace.start_ns)
        if users:
            self.runner.start(users, spawn_rate=users)
        _sleep_until(pace.until_ns)
        context.drain()
        self.runner.stop()
        writer.stop()
        return {
            "client": {**usage.get(), "max_in_flight": context.max_in_flight},
            "checked": context.recorder.checked,
        }


def _share(total: int, part: int, parts: int) -> int:
    """This process's share of `total` users."""
    return total // parts + (part < total % parts)


class _Writer:
    """Writes rows while a phase lasts, and reports each failure kind before the first row with its number."""

    def __init__(self, recorder: Recorder, rows: BinaryIO, say: Callable[[dict[str, Any]], None]) -> None:
        self._recorder, self._rows, self._say = recorder, rows, say
        self._told = 0
        self._greenlet = gevent.spawn(self._write)

    def _write(self) -> None:
        while True:
            gevent.sleep(_FLUSH_S)
            self._flush()

    def _flush(self) -> None:
        rows = self._recorder.take()
        for failure in self._recorder.failures[self._told :]:
            self._told += 1
            self._say({"event": "failure", **asdict(failure)})
        self._rows.write(rows)

    def stop(self) -> None:
        self._greenlet.kill()
        self._flush()


def _usage(pace: Pace) -> dict[str, Any]:
    """CPU and memory of this process between warm-up and end, and the lag of its event loop meanwhile."""
    import psutil

    _sleep_until(pace.start_ns + round(pace.shape.warmup_s * 1e9))
    cpu_s, wall_s, lag = time.process_time(), time.monotonic(), LoopLag()
    _sleep_until(pace.until_ns)
    lag.stop()
    return {
        "cpu_s": time.process_time() - cpu_s,
        "wall_s": time.monotonic() - wall_s,
        "memory_bytes": psutil.Process().memory_info().rss,
        "loop_lag_p99_ms": lag.p99_ms(),
    }


def _sleep_until(time_ns: int) -> None:
    """gevent's clock stands still while other code runs, so one sleep may end too early."""
    while (left_ns := time_ns - time.monotonic_ns()) > 0:
        gevent.sleep(left_ns / 1e9)


def main() -> None:
    allow_many_connections()
    orders = FileObject(sys.stdin.buffer, "rb")
    say = partial(_answer, os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    try:
        given = json.loads(orders.readline() or "{}")
        targets = {name: LocustTarget(Workload.of(workload)) for name, workload in given["targets"].items()}
        described = {name: target.described() for name, target in targets.items()}
    except ModelwrightError as error:
        say({"event": "error", "message": error.message, "hint": error.hint})
        return
    say({"event": "ready", "targets": described})
    for line in orders:
        order = json.loads(line)
        shape = LoadShape(**order["shape"])
        until_ns = order["start_ns"] + round((shape.warmup_s + shape.duration_s) * 1e9)
        pace = Pace(shape, order["start_ns"], until_ns, given["part"], given["parts"], order["seed"])
        with Path(order["rows"]).open("ab", buffering=0) as rows:
            say({"event": "done", **targets[order["target"]].run(pace, order["url"], rows, say)})
    for target in targets.values():
        target.context.close()


def _answer(answers: Any, data: dict[str, Any]) -> None:
    answers.write(json.dumps(data).encode() + b"\n")


if __name__ == "__main__":
    main()
