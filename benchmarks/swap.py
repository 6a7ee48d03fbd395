"""Versions that come and go under load: `python -m benchmarks swap`. What is asked of a swap, and what it costs."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks import swap_models
from benchmarks.load_client import Load, LoadClient, Rows
from benchmarks.options import Options
from benchmarks.server_log import load_times
from benchmarks.servers import Mode, serving
from benchmarks.swap_models import Swapped
from benchmarks.table import Section, load
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.project.project import ProjectConfig
from modelwright.server.local import RunningServer
from modelwright.triton.client import Client, connect

CYCLES = 100
MODELS = ("product", "digits")
SHARES = (0.5, 0.9)
_IN_FLIGHT = 32  # of the closed loop that finds the capacity
_DRAIN_NS = 250_000_000  # after a version was loaded: requests that waited meanwhile are still answered
_GUARD_NS = 1_000_000_000  # around a swap, which counts neither as the swap nor as steady
_PATIENCE_S = 60.0
_ENDS_S = 20.0  # a version that has not ended by then never will
_LOOK_S = 0.05

Protocol = Literal["http", "grpc"]


@dataclass(frozen=True)
class Pauses:
    """Seconds of load before the first swap, and after each."""

    first_s: float = 3.0
    between_s: float = 1.2
    capacity_s: float = 3.0


@dataclass(frozen=True)
class Case:
    """One load on one server."""

    model: str
    mode: Mode
    protocol: Protocol
    share: float  # of the capacity
    cycles: int


@dataclass(frozen=True)
class Found:
    """What a case came to. Latencies are from the intended send."""

    case: Case
    rate: float
    load: Load
    swaps: Sequence[tuple[int, int]]  # from the rename to the end of the old version, on the monotonic clock
    loading: Sequence[tuple[int, int]]  # a new version loads, by the server's log
    wrong: Sequence[str]

    @property
    def latencies_ms(self) -> Rows:
        rows = self.load.succeeded
        latencies: Rows = (rows["end_ns"] - rows["intended_ns"]) / 1e6
        return latencies

    def p99_ms(self, which: Rows) -> float | None:
        chosen = self.latencies_ms[which]
        return float(np.percentile(chosen, 99)) if len(chosen) >= NEEDED["p99"] else None

    def during(self, spans: Sequence[tuple[int, int]]) -> Rows:
        """Which requests were due in one of these spans."""
        due = self.load.succeeded["intended_ns"]
        found: Rows = np.any([(due >= first) & (due < last) for first, last in spans], axis=0)
        return found

    @property
    def in_swap(self) -> Rows:
        return self.during([(first, last + _DRAIN_NS) for first, last in self.swaps])

    @property
    def in_loading(self) -> Rows:
        return self.during([(first, last + _DRAIN_NS) for first, last in self.loading])

    @property
    def steady(self) -> Rows:
        begun = self.load.succeeded["intended_ns"] >= self.load.start_ns + _GUARD_NS
        return begun & ~self.during([(first - _GUARD_NS // 10, last + _GUARD_NS) for first, last in self.swaps])


@dataclass
class Memory:
    """What a server holds: its own memory, its model processes, its files of shared memory."""

    server_bytes: int
    processes: int
    shared_files: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        import psutil

        server = psutil.Process(pid)
        shared = list(Path("/dev/shm").glob(f"modelwright-{os.getpid()}-*"))
        return cls(server.memory_info().rss, len(server.children(recursive=True)), len(shared))


def measure(options: Options) -> list[Section]:
    cycles, pauses = (16, Pauses(1.0, 0.3, 0.5)) if options.quick else (CYCLES, Pauses())
    with tempfile.TemporaryDirectory(prefix="modelwright-swap-") as folder:
        project = swap_models.project(Path(folder) / "project", MODELS)
        return sections(*run(project, cases(cycles), pauses))


def cases(cycles: int) -> list[Case]:
    """Every combination, `cycles` in all."""
    modes: tuple[Mode, ...] = ("poll", "explicit")
    protocols: tuple[Protocol, ...] = ("http", "grpc")
    combinations = list(itertools.product(modes, MODELS, protocols, SHARES))
    each, more = divmod(cycles, len(combinations))
    return [
        Case(model, mode, protocol, share, each + (number < more))
        for number, (mode, model, protocol, share) in enumerate(combinations)
    ]


@dataclass
class Served:
    """A server of one mode. `memory`: what it held after how many swaps; `stuck`: versions that it did not end."""

    mode: Mode
    memory: list[tuple[int, Memory]] = field(default_factory=list)
    swaps: int = 0
    stuck: int = 0


def run(project: ProjectConfig, wanted: Sequence[Case], pauses: Pauses) -> tuple[list[Found], list[Served]]:
    """Every case; those of one mode share a server."""
    found: list[Found] = []
    servers: list[Served] = []
    for mode, group in itertools.groupby(wanted, key=lambda case: case.mode):
        served = Served(mode)
        servers.append(served)
        with serving(project, mode, f"swap-{mode}") as server:
            found += [_case(project, server, case, pauses, served) for case in group]
    return found, servers


def _case(project: ProjectConfig, server: RunningServer, case: Case, pauses: Pauses, served: Served) -> Found:
    address = f"{case.protocol}://{server.grpc if case.protocol == 'grpc' else server.http}"
    workload = Workload(address, case.model, payload="golden", repository=str(project.repository), check_every=1)
    swapped = Swapped(project, case.model)
    with (
        tempfile.TemporaryDirectory(prefix="modelwright-swap-") as folder,
        LoadClient(workload, Path(folder)) as client,
        connect(f"http://{server.http}") as looks,
        connect(f"grpc://{server.grpc}") as loads,
    ):
        operator = _Operator(looks, loads, case.mode, swapped)
        most = client.load("capacity", LoadShape(_IN_FLIGHT, duration_s=pauses.capacity_s))
        rate = case.share * len(most.succeeded) / pauses.capacity_s
        client.begin("swaps", LoadShape(rate=rate, duration_s=0))
        time.sleep(pauses.first_s)
        began_ns = time.monotonic_ns()
        swaps = [swap for number in range(case.cycles) for swap in _cycle(operator, pauses, at_once=number % 2 == 0)]
        served.swaps += 2 * case.cycles
        served.stuck += len(operator.stuck)
        served.memory.append((served.swaps, Memory.of(server.pid)))
        done = client.end()
        loading = load_times(server.log, case.model, since_ns=began_ns)
    wrong = [*most.wrong(swapped.golden), *done.wrong(swapped.golden)]
    return Found(case, rate, done, swaps, loading, wrong)


def _cycle(operator: _Operator, pauses: Pauses, at_once: bool) -> list[tuple[int, int]]:
    """Publish and roll back: when the server has ended with the old version or, `at_once`, while it still ends it."""
    first_ns = time.monotonic_ns()
    operator.publish()
    if at_once:
        operator.roll_back()
    operator.settle()
    spans = [(first_ns, time.monotonic_ns())]
    time.sleep(pauses.between_s)
    if not at_once:
        first_ns = time.monotonic_ns()
        operator.roll_back()
        operator.settle()
        spans.append((first_ns, time.monotonic_ns()))
        time.sleep(pauses.between_s)
    return spans


@dataclass
class _Operator:
    """Changes the repository, and tells the server or waits until it has noticed.

    A load goes over gRPC: over HTTP it takes one of the server's HTTP threads as long as it lasts, and the requests of
    every connection on that thread wait.
    """

    looks: Client  # HTTP
    loads: Client  # gRPC
    mode: Mode
    swapped: Swapped
    stuck: set[int] = field(default_factory=set)  # versions that the server does not end
    _wanted: int = 1

    def publish(self) -> None:
        self._wanted = self.swapped.publish()
        self._follow()

    def roll_back(self) -> None:
        self._wanted = self.swapped.roll_back()
        self._follow()

    def _follow(self) -> None:
        if self.mode == "explicit":
            self.loads.load(self.swapped.model)
        if not self._holds(lambda: self._states().get(self._wanted) == "READY", _PATIENCE_S):
            raise RuntimeError(f"{self.swapped.model}: version {self._wanted} is not served after {_PATIENCE_S:g} s")

    def settle(self) -> None:
        """Wait until the version is the only one."""
        if not self._holds(lambda: not self._others(), _ENDS_S):
            self.stuck |= self._others()

    def _others(self) -> set[int]:
        states = self._states()
        return {version for version in states if states[version] != "UNAVAILABLE"} - self.stuck - {self._wanted}

    def _states(self) -> dict[int, str]:
        entries = [entry for entry in self.looks.index() if entry.name == self.swapped.model and entry.version]
        return {int(entry.version): entry.state for entry in entries}

    def _holds(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return True


# --- the tables -------------------------------------------------------------------------------------------------------


def sections(found: Sequence[Found], servers: Sequence[Served]) -> list[Section]:
    cycles = sum(item.case.cycles for item in found)
    requests = sum(len(item.load.rows) for item in found)
    failed = sum(item.load.failed for item in found)
    wrong = [line for item in found for line in item.wrong]
    kinds = sorted({kind for item in found for kind in item.load.failures})
    ratios = {share: [_ratio(item) for item in found if item.case.share == share] for share in SHARES}
    return [
        Section(
            f"swap: {cycles} times a version published and rolled back under load",
            "Open loop, latencies from the intended send, one client process on the server's cores. "
            f"Load average {load()}.",
            [
                *("model, mode, protocol, load", "requests/s", "requests", "failed", "wrong", "p50"),
                *("p99 steady", "p99 in swaps", "of steady", "p99 while one loads", "samples"),
            ],
            [_row(item) for item in found],
            [
                f"{failed:,} of {requests:,} requests failed{': ' + '; '.join(kinds) if kinds else ''}.",
                "Every answer was compared with the golden one of the version that it names: "
                f"{len(wrong)} kinds of wrong answers.",
                *wrong[:5],
                *(
                    f"At {share:.0%} of the capacity p99 during swaps is {min(known):.1f} to {max(known):.1f} times "
                    "the steady one; the aim is ≤ 1.5."
                    for share, values in ratios.items()
                    if (known := [value for value in values if value is not None])
                ),
            ],
        ),
        Section(
            "swap: what the server holds",
            "After each case of one model, load and protocol, while requests are sent.",
            ["server, swaps", "memory", "model processes", "shared memory files", "versions that did not end"],
            [row for item in servers for row in _memory_rows(item)],
        ),
    ]


def _ratio(item: Found) -> float | None:
    swap, steady = item.p99_ms(item.in_swap), item.p99_ms(item.steady)
    return swap / steady if swap is not None and steady else None


def _row(item: Found) -> list[str]:
    case, ratio = item.case, _ratio(item)
    return [
        f"`{case.model}`, {case.mode}, {case.protocol.upper()}, {case.share:.0%}",
        f"{item.rate:,.0f}",
        f"{len(item.load.rows):,}",
        f"{item.load.failed:,}",
        f"{len(item.wrong)}",
        _ms(float(np.median(item.latencies_ms))),
        _ms(item.p99_ms(item.steady)),
        _ms(item.p99_ms(item.in_swap)),
        f"{ratio:.1f}" if ratio is not None else "-",
        _ms(item.p99_ms(item.in_loading)),
        f"{np.count_nonzero(item.in_swap):,}",
    ]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _memory_rows(item: Served) -> list[list[str]]:
    return [
        [
            f"{item.mode}, {swaps}",
            f"{memory.server_bytes / 2**20:.0f} MiB",
            f"{memory.processes}",
            f"{memory.shared_files}",
            f"{item.stuck}" if swaps == item.swaps else "",
        ]
        for swaps, memory in item.memory
    ]
