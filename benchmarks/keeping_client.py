"""A load-test process that keeps every answer: `python -m benchmarks.keeping_client`. `load_client` starts it.

    → {"workload": {…}, "folder": "where its files go"}
    ← {"event": "ready"}
    → {"name": "steady", "shape": {…}, "seed": 7}
    ← {"event": "started", "start_ns": …}         the first request is due then, on the monotonic clock
    → {}                                         ends a load whose shape has no duration
    ← {"event": "done"}                          steady.rows, steady.numbers and steady.answers are written

The generator is that of `modelwright load`. Answers are not compared while requests are sent, which would cost more
than the requests do: equal answers are one entry of a table, and each request notes the entry's number.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()  # before any other import binds a function that blocks

import json
import os
import pickle
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.fileobject import FileObject

from modelwright.errors import ModelwrightError
from modelwright.loadtest.generator.context import FOREVER, Pace, UserContext, allow_many_connections
from modelwright.loadtest.generator.recording import Recorder
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.loadtest.wire.callers import Caller

_LEAD_NS = 50_000_000  # from the order to the first request

Say = Callable[[dict[str, Any]], None]


class KeepingContext(UserContext):
    """`answers` are the distinct answers of each payload; `numbers` has an answer's place there, for each request.

    A request is recorded right after its answer was kept, and no greenlet runs in between: the numbers are in the order
    of the rows that are no failures.
    """

    # Of more, tritonserver's HTTP front end computes a request now and then and never sends the answer (seen with 1,000
    # connections and no swap: 3 requests of 250,000). What waits for one is late from its intended send on.
    max_connections = 256

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.forget()

    def forget(self) -> None:
        self.recorder = Recorder()
        self.answers: dict[tuple[int, Any], int] = {}
        self.numbers = array("q")

    def check_answer(self, caller: Caller, payload: int, answer: Any) -> int:
        self.numbers.append(self.answers.setdefault((payload, answer), len(self.answers)))
        return 0


class _Process:
    def __init__(self, workload: Workload, folder: Path, orders: Any, say: Say) -> None:
        self._context = KeepingContext(workload)
        self._folder, self._orders, self._say = folder, orders, say

    def load(self, name: str, shape: LoadShape, seed: int) -> None:
        context = self._context
        context.forget()
        context.rewind(seed)
        context.is_over = False
        start_ns = time.monotonic_ns() + _LEAD_NS
        until_ns = start_ns + round(shape.duration_s * 1e9) if shape.duration_s else FOREVER
        self._say({"event": "started", "start_ns": start_ns})
        if shape.is_open:
            senders = [gevent.spawn(context.open_loop, Pace(shape, start_ns, until_ns, seed=seed))]
        else:
            callers = [context.caller() for _ in range(shape.concurrency or 1)]
            senders = [gevent.spawn(context.closed_loop, caller, until_ns) for caller in callers]
        if until_ns == FOREVER:
            self._orders.readline()
            context.is_over = True
        gevent.joinall(senders)
        context.drain()
        self._write(name)

    def _write(self, name: str) -> None:
        failures = [f"{failure.kind}: {failure.message}" for failure in self._context.recorder.failures]
        self._folder.joinpath(f"{name}.rows").write_bytes(self._context.recorder.take())
        self._folder.joinpath(f"{name}.numbers").write_bytes(self._context.numbers.tobytes())
        with self._folder.joinpath(f"{name}.answers").open("wb") as file:
            pickle.dump((failures, list(self._context.answers)), file)


def main() -> None:
    allow_many_connections()
    orders = FileObject(sys.stdin.buffer, "rb")
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not mix with the answers

    def say(data: dict[str, Any]) -> None:
        answers.write(json.dumps(data).encode() + b"\n")

    given = json.loads(orders.readline())
    try:
        process = _Process(Workload.of(given["workload"]), Path(given["folder"]), orders, say)
    except ModelwrightError as error:
        say({"event": "error", "message": str(error)})
        return
    say({"event": "ready"})
    for line in orders:
        order = json.loads(line)
        process.load(order["name"], LoadShape(**order["shape"]), order["seed"])
        say({"event": "done"})


if __name__ == "__main__":
    main()
