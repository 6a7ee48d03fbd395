"""The load generator: how much it can ask for, what a request costs it, and how wrong its clock is."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.loadtest.generator.processes import GeneratorProcesses, Phase, Watch
from modelwright.loadtest.measure.latency import latency
from modelwright.loadtest.measure.servers import local
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.loadtest.wire.null_server import null_server
from modelwright.project.project import ProjectConfig, find

_MODEL = "digits"
_IN_FLIGHT = 32
_TRITONCLIENT: dict[str, Any] = {"api": "tritonclient"}
_ANSWERS = re.compile(r"Request count: (\d+)")
_THROUGHPUT = re.compile(r"Throughput: ([\d.]+) infer/sec")
_P50, _P99 = re.compile(r"p50 latency: (\d+) usec"), re.compile(r"p99 latency: (\d+) usec")

Protocol = Literal["http", "grpc"]


@dataclass(frozen=True)
class _Reached:
    throughput: float
    cpu_us: float  # of the client, a request
    p50_ms: float
    p99_ms: float


def measure(options: Options) -> list[Section]:
    with tempfile.TemporaryDirectory(prefix="modelwright-generator-") as folder:
        project = projects.shipped_project(Path(folder), [_MODEL])
        projects.take_store(project)
        timing.build(project)
        found = find(project)
        return [_throughput(found, options), _processes(found, options), _clock(found, options)]


@contextmanager
def _served(project: ProjectConfig) -> Iterator[tuple[str, str]]:
    """URLs of a server with the model."""
    log = project.logs / "benchmark.log"
    with local(project, project.repository, {_MODEL: []}, "http", log, lambda _: None) as server:
        assert server.local
        yield f"http://{server.local.http}", f"grpc://{server.local.grpc}"


def _throughput(project: ProjectConfig, options: Options) -> Section:
    """Everybody in turn, on one server that stays up."""
    seconds, rounds = (0.5, 2) if options.quick else (3.0, 5)
    found: dict[str, list[_Reached]] = {}
    with _served(project) as (http, grpc), tempfile.TemporaryDirectory() as folder:
        workloads = {
            f"Modelwright, {name}": replace(Workload(url, _MODEL, repository=str(project.repository)), **how)
            for name, url, how in (
                ("HTTP", http, {}),
                ("gRPC", grpc, {}),
                ("HTTP, tritonclient's `infer()`", http, _TRITONCLIENT),
                ("gRPC, tritonclient's `infer()`", grpc, _TRITONCLIENT),
            )
        }
        with GeneratorProcesses(workloads, 1, Path(folder)) as generators:
            shape = LoadShape(_IN_FLIGHT, warmup_s=0.5, duration_s=seconds)
            takers: dict[str, Callable[[], _Reached]] = {
                name: lambda name=name: _reached(generators.run(name, shape, Watch()))  # type: ignore[misc]
                for name in workloads
            }
            if options.perf_analyzer:
                for words, url in (("HTTP", http), ("gRPC", grpc)):
                    takers[f"perf_analyzer, {words}"] = lambda url=url: _perf_analyzer(options, url, seconds)  # type: ignore[misc]
            for number in range(rounds):
                for name in list(takers)[:: 1 if number % 2 == 0 else -1]:
                    found.setdefault(name, []).append(takers[name]())
    peer = (
        statistics.median(run.throughput for run in found.get("perf_analyzer, HTTP", []))
        if options.perf_analyzer
        else 0
    )
    return Section(
        f"generator: {_IN_FLIGHT} in flight on `{_MODEL}`, one process",
        f"{rounds} rounds in turns of {seconds:g} s each, one server; client and server share the cores. CPU is the "
        f"client's own. Load average {load()}.",
        ["client", "median", "best", "p50", "p99", "CPU a request", "of perf_analyzer, HTTP"],
        [_throughput_row(name, runs, peer) for name, runs in found.items()],
        [
            "The aim is ≥ 5,000 requests/s over HTTP and gRPC on a machine where perf_analyzer reaches about 6,500.",
            *(
                []
                if options.perf_analyzer
                else ["perf_analyzer was not there: give its binary with `--perf-analyzer`."]
            ),
        ],
    )


def _throughput_row(name: str, runs: Sequence[_Reached], peer: float) -> list[str]:
    throughput = statistics.median(run.throughput for run in runs)
    return [
        name,
        f"{throughput:,.0f} /s",
        f"{max(run.throughput for run in runs):,.0f} /s",
        f"{statistics.median(run.p50_ms for run in runs):.2f} ms",
        f"{statistics.median(run.p99_ms for run in runs):.2f} ms",
        f"{statistics.median(run.cpu_us for run in runs):.0f} µs",
        f"{throughput / peer:.2f}" if peer else "-",
    ]


def _reached(phase: Phase) -> _Reached:
    rows = phase.measured()
    good = rows[rows["code"] == 0]
    if len(good) < len(rows) or not len(good):
        raise RuntimeError(f"{len(rows) - len(good)} of {len(rows)} requests failed: {phase.record.failures}")
    times = latency(good["end_ns"] - good["start_ns"])
    cpu_s = sum(client["cpu_s"] for client in phase.clients)
    percentiles = times.percentiles_ms
    return _Reached(
        len(good) / ((phase.until_ns - phase.start_ns) * 1e-9),
        cpu_s * 1e6 / len(good),
        percentiles["p50"] or 0.0,
        percentiles["p99"] or 0.0,
    )


def _perf_analyzer(options: Options, url: str, seconds: float) -> _Reached:
    """The peer on the same server: its own report of the last window, and the CPU that the kernel counted."""
    protocol, _, address = url.partition("://")
    command = [str(options.perf_analyzer), "-m", _MODEL, "-u", address, "-i", protocol]
    command += ["--concurrency-range", str(_IN_FLIGHT), "-p", str(round(seconds * 1000)), "-r", "3", "-s", "50"]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = os.times()
    answers, throughput, p50, p99 = (
        float(found[1]) if (found := pattern.search(done.stdout)) else float("nan")
        for pattern in (_ANSWERS, _THROUGHPUT, _P50, _P99)
    )
    cpu_s = after.children_user - before.children_user + after.children_system - before.children_system
    return _Reached(throughput, cpu_s * 1e6 / answers, p50 / 1000, p99 / 1000)


def _processes(project: ProjectConfig, options: Options) -> Section:
    seconds = 0.5 if options.quick else 3.0
    rows = []
    for protocol in ("http", "grpc"):
        one = None
        for processes in (1, 2):
            runs = [_ceiling(project, protocol, processes, seconds) for _ in range(options.rounds(3))]
            throughput, busy = (statistics.median(values) for values in zip(*runs, strict=True))
            one = one or throughput
            rows.append(
                [f"{protocol.upper()}, {processes}", f"{throughput:,.0f} /s", f"{busy:.2f}", f"{throughput / one:.2f}"]
            )
    return Section(
        "generator: `--processes`",
        f"{2 * _IN_FLIGHT} in flight against a null server, which takes a core of its own to answer; the client's "
        "processes have what is left of the machine's.",
        ["protocol, processes", "requests", "cores of the clients", "speed-up"],
        rows,
    )


def _ceiling(project: ProjectConfig, protocol: Protocol, processes: int, seconds: float) -> tuple[float, float]:
    shape = LoadShape(2 * _IN_FLIGHT, warmup_s=0.3, duration_s=seconds)
    with _aimed(project, protocol, processes) as generators, null_server(protocol) as server:
        phase = generators.run(_MODEL, shape, Watch(), url=f"{protocol}://127.0.0.1:{server.port}")
    cores = sum(client["cpu_s"] / client["wall_s"] for client in phase.clients)
    return _reached(phase).throughput, cores


@contextmanager
def _aimed(project: ProjectConfig, protocol: Protocol, processes: int) -> Iterator[GeneratorProcesses]:
    """Clients that know the model, and will ask somebody else."""
    with tempfile.TemporaryDirectory() as folder, _served(project) as urls:
        workload = Workload(urls[protocol == "grpc"], _MODEL, repository=str(project.repository), check_every=0)
        with GeneratorProcesses({_MODEL: workload}, processes, Path(folder)) as generators:
            yield generators


def _clock(project: ProjectConfig, options: Options) -> Section:
    """What the client says of a server that takes exactly 5 ms."""
    seconds = 1.0 if options.quick else 6.0
    rows = []
    for protocol in ("http", "grpc"):
        for arrivals in ("constant", "poisson"):
            errors = [_error(project, protocol, arrivals, seconds) for _ in range(options.rounds(3))]
            own = [f"{statistics.median(item[key] for item in errors):+.3f} ms" for key in range(4)]
            rows.append([f"{protocol.upper()}, {arrivals}", *own])
    return Section(
        "generator: latency against a null server of 5 ms, 1,000 requests/s",
        f"Open loop, {seconds:g} s, medians of {options.rounds(3)} runs. Measured latency less 5 ms, and less the "
        "delay that the server itself had (from the last byte read to the answer handed to the kernel). "
        f"Load average {load()}.",
        [
            "protocol, arrivals",
            "service p50 - 5 ms",
            "service p99 - 5 ms",
            "p50 less the server's own",
            "p99 less the server's own",
        ],
        rows,
        ["The aim is an error of ≤ 0.3 ms at p50 and ≤ 1 ms at p99."],
    )


def _error(
    project: ProjectConfig, protocol: Protocol, arrivals: Literal["constant", "poisson"], seconds: float
) -> list[float]:
    shape = LoadShape(rate=1000.0, arrivals=arrivals, warmup_s=1.0, duration_s=seconds)
    with _aimed(project, protocol, 1) as generators, null_server(protocol, delay_s=0.005) as server:
        reached = _reached(generators.run(_MODEL, shape, Watch(), url=f"{protocol}://127.0.0.1:{server.port}"))
        own = server.delays()
    return [
        reached.p50_ms - 5,
        reached.p99_ms - 5,
        reached.p50_ms - own.p50_ns * 1e-6,
        reached.p99_ms - own.p99_ns * 1e-6,
    ]
