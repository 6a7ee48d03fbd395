"""Pushes to a real S3 server, killed with `kill -9` at every request, and with every fault at every request.

After each, what a server would read at that prefix must load, and the next push must bring what is missing.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path

from benchmarks.options import Options
from benchmarks.table import Section
from modelwright.errors import ModelwrightError
from modelwright.remotes.index import INDEX
from modelwright.remotes.lock import LOCK
from modelwright.remotes.place import place_of
from modelwright.remotes.push import carry_out, take
from modelwright.remotes.store import ObjectStore, RemoteStore, file_system_of, open_store
from tests.remotes.buckets import Bucket
from tests.remotes.repositories import MadeRepository
from tests.remotes.s3 import BUCKET, CREDENTIALS, Answer, Fault, Hang, Proxy, Request, Reset, Truncate, ask, moto
from tests.remotes.scenarios import SCENARIOS, Scenario, prepare, push
from tests.waiting import wait_until

_FAULTS: dict[str, Fault] = {
    "500": Answer(500, "InternalError"),
    "500, and it was done": Answer(500, "InternalError", done=True),
    "503 SlowDown": Answer(503, "SlowDown"),
    "reset": Reset(),
    "reset, and it was done": Reset(done=True),
    "half of the answer": Truncate(),
    "no answer": Hang(),
}
_SCENARIOS = (
    "a pipeline moves",
    "a version is rolled back",
)  # tests/remotes/test_order.py has all of them, on a folder
_WITH_FAULTS = ("a pipeline moves",)
_READ_TIMEOUT_S = 1.0
_PATIENCE_S = 600  # for the process with the large file
_LARGE_BYTES = 512 << 20


def measure(options: Options) -> list[Section]:
    os.environ.update(CREDENTIALS)
    import s3fs

    s3fs.S3FileSystem.read_timeout = _READ_TIMEOUT_S
    names = _SCENARIOS[:1] if options.quick else _SCENARIOS
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.remotes", "s3fs", "aiobotocore.session"])
    with moto() as port, Proxy(port) as proxy, tempfile.TemporaryDirectory(prefix="modelwright-remotes-") as folder:
        ask(port, "PUT", f"/{BUCKET}")
        bench = _Bench(proxy, Path(folder), context, file_system_of(place_of(_url(proxy, ""))))
        rows = [bench.scenario(name, options) for name in names]
        return [_killed(rows), _memory(proxy, Path(folder), options)]


def _url(proxy: Proxy, prefix: str) -> str:
    return f"s3://http://127.0.0.1:{proxy.port}/{BUCKET}/{prefix}".rstrip("/")


def _killed(rows: list[list[str]]) -> Section:
    header = ["push", "requests", "killed", "states", "faults", "went on", "stopped", "wrong"]
    method = (
        "*killed*: pushes ended by SIGKILL, at each of their requests, before and after the server carried it out. "
        "*states*: how often it was looked at what a server would read: after every request that changes something. "
        "*faults*: pushes with one fault each; *went on*: those that the client repeated by itself; *stopped*: those "
        "that ended in a message. A second push followed each. *wrong*: states that a server could not load, and "
        "prefixes that were not what they should be after the second push."
    )
    return Section("remotes: pushes that end, at every request", method, header, rows)


class _Bench:
    def __init__(self, proxy: Proxy, folder: Path, context: ForkServerContext, files: object) -> None:
        self.proxy, self.folder, self.context, self.files = proxy, folder, context, files
        self.numbers = itertools.count()
        self.states = self.wrong = 0

    def scenario(self, name: str, options: Options) -> list[str]:
        self.states = self.wrong = 0
        scenario = SCENARIOS[name]
        made = MadeRepository(self.folder / f"project-{next(self.numbers)}")
        start = self.bucket()
        prepare(scenario, made, self.store(start))
        before = {name: start.read(name) for name in start.objects()}
        whole = self.copy(before)
        self.proxy.reset()
        with self.watched(whole):
            push(self.store(whole), made, delete=scenario.delete)
            requests = len(self.proxy.requests)
        expected = self.contents(whole)
        step = 8 if options.quick else 1
        killed = 0
        for number in range(1, requests + 1, step):
            for done in (False, True):
                killed += self.kill(scenario, made, before, expected, number, done)
        went_on = stopped = 0
        for fault in list(_FAULTS.values())[:: 3 if options.quick else 1] if name in _WITH_FAULTS else ():
            for number in range(1, requests + 1, step):
                if self.fault(scenario, made, before, expected, number, fault):
                    went_on += 1
                else:
                    stopped += 1
        faults = went_on + stopped
        row = [name, *map(str, (requests, killed, self.states, faults, went_on, stopped, self.wrong))]
        print(", ".join(row), file=sys.stderr, flush=True)  # the whole takes long
        return row

    def kill(
        self, scenario: Scenario, made: MadeRepository, before: dict[str, bytes], expected: dict[str, bytes],
        number: int, done: bool,
    ) -> int:  # fmt: skip
        bucket = self.copy(before)
        killed: list[int] = []
        child = self.context.Process(target=_push, args=(bucket.url, made.folder, scenario.delete))

        def at(request: Request) -> Fault:
            if request.number < number:
                return None
            if child.pid is not None and request.number == number:
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
                wait_until(lambda: _ended(killed[0]), "the push to end")
            return None if done and request.number == number else Reset()

        with self.watched(bucket):
            self.proxy.on_request = at
            child.start()
            child.join()
        self.complete(bucket, scenario, made, expected)
        return len(killed)

    def fault(
        self, scenario: Scenario, made: MadeRepository, before: dict[str, bytes], expected: dict[str, bytes],
        number: int, fault: Fault,
    ) -> bool:  # fmt: skip
        """Whether the push went on."""
        bucket = self.copy(before)
        with self.watched(bucket):
            self.proxy.on_request = lambda request: fault if request.number == number else None
            try:
                push(self.store(bucket), made, delete=scenario.delete)
                went_on = True
            except ModelwrightError:
                went_on = False
        self.complete(bucket, scenario, made, expected)
        return went_on

    def complete(self, bucket: Bucket, scenario: Scenario, made: MadeRepository, expected: dict[str, bytes]) -> None:
        """The push after one that ended."""
        self.look(bucket)
        try:
            push(self.store(bucket), made, delete=scenario.delete)
        except ModelwrightError:  # a lock of this process, which lives: its answer was lost
            bucket.remove(LOCK)
            push(self.store(bucket), made, delete=scenario.delete)
        self.look(bucket)
        self.wrong += self.contents(bucket) != expected

    def look(self, bucket: Bucket) -> None:
        self.states += 1
        self.wrong += bool(bucket.unready())

    @contextmanager
    def watched(self, bucket: Bucket) -> Iterator[None]:
        self.proxy.reset()
        self.proxy.after_write = lambda _: self.look(bucket)
        yield
        self.proxy.reset()

    def bucket(self) -> Bucket:
        return Bucket(self.proxy, f"p{next(self.numbers)}", self.files)

    def store(self, bucket: Bucket) -> RemoteStore:
        return ObjectStore(bucket.place, self.files)

    def copy(self, objects: dict[str, bytes]) -> Bucket:
        bucket = self.bucket()
        for name, data in objects.items():
            bucket.write(name, data)
        return bucket

    def contents(self, bucket: Bucket) -> dict[str, bytes]:
        return {name: bucket.read(name) for name in bucket.objects() if name != INDEX}


def _ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _push(url: str, folder: Path, delete: bool) -> None:
    carry_out(open_store(place_of(url)), take(MadeRepository(folder).repository), delete=delete, settle_s=0)


def _memory(proxy: Proxy, folder: Path, options: Options) -> Section:
    """What a push of one large file takes, in a process of its own."""
    size = _LARGE_BYTES // (16 if options.quick else 1)
    made = MadeRepository(folder / "large")
    made.version("large", 1, content=os.urandom(1 << 20) * (size >> 20))
    proxy.reset()
    context = multiprocessing.get_context("spawn")
    rows = []
    for what, work in (("push", _push_large), ("pull", _pull_large)):
        result: multiprocessing.Queue[tuple[float, int, int]] = context.Queue()
        child = context.Process(target=work, args=(_url(proxy, "large"), folder / "large", result))
        child.start()
        seconds, before, peak = result.get(timeout=_PATIENCE_S)
        child.join()
        rows.append([what, f"{size >> 20} MiB", f"{seconds:.1f} s", f"{before >> 10} MiB", f"{peak >> 10} MiB"])
    shutil.rmtree(folder / "large")
    header = ["", "file", "time", "memory before", "peak"]
    method = (
        "One version with one large file, in parts of 8 MiB. Memory is the resident set of the process. The S3 server "
        "runs on the same cores."
    )
    return Section("remotes: a large file", method, header, rows)


def _timed(work: Callable[[], object], result: multiprocessing.Queue[tuple[float, int, int]]) -> None:
    before, began = _peak_kib(), time.monotonic()
    work()
    result.put((time.monotonic() - began, before, _peak_kib()))


def _peak_kib() -> int:
    """The largest resident set that this process had, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _push_large(url: str, folder: Path, result: multiprocessing.Queue[tuple[float, int, int]]) -> None:
    store = open_store(place_of(url))
    store.entries()
    _timed(lambda: _push(url, folder, False), result)


def _pull_large(url: str, folder: Path, result: multiprocessing.Queue[tuple[float, int, int]]) -> None:
    from modelwright.project.signing import Signing
    from modelwright.remotes.pull import look_for, pull

    store = open_store(place_of(url))
    repository = MadeRepository(folder / "copy").repository

    def work() -> None:
        survey = look_for(store, repository, (), jobs=4)
        pull(store, repository, survey, Signing(), jobs=4, say=lambda _: None)

    store.entries()
    _timed(work, result)
