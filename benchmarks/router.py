"""What a router costs: `python -m benchmarks router`. The same requests to a model, and to a router in front of it."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.loadtest.generator.processes import GeneratorProcesses, Phase, Watch
from modelwright.loadtest.measure.latency import latency
from modelwright.loadtest.measure.servers import local
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.project.project import ProjectConfig, find

# Both arms are one model, of which the second gets nothing: so each request can be held against the model itself.
_ROUTER = """\
source:
  kind: router
  arms: [{{model: {model}, weight: 1}}, {{model: {model}, version: 1, weight: 0}}]
{more}serving: {{instance_group: [{{count: {count}, kind: KIND_CPU}}]}}
"""
Protocol = Literal["http", "grpc"]

_MODELS = ("digits", "minilm")
_MOST = 32  # in flight
_CASES: tuple[tuple[str, Protocol, int], ...] = (
    *(("digits", protocol, in_flight) for protocol in ("http", "grpc") for in_flight in (1, 8, _MOST)),
    *(("minilm", "grpc", in_flight) for in_flight in (1, 8)),
)
_SHADOW = "  shadow: [{model: digits, version: 1, fraction: 0.1}]\n"


@dataclass(frozen=True)
class _Run:
    throughput: float
    cpu_us: float  # of the server's processes, a request
    times_ns: NDArray[Any]


@dataclass(frozen=True)
class _Runs:
    """The rounds of one model."""

    runs: Sequence[_Run]

    @property
    def throughput(self) -> float:
        return statistics.median(run.throughput for run in self.runs)

    @property
    def cpu_us(self) -> float:
        return statistics.median(run.cpu_us for run in self.runs)

    def percentile_ms(self, name: str) -> float | None:
        """Over all rounds; None where there are too few requests for it."""
        return latency(np.concatenate([run.times_ns for run in self.runs])).percentiles_ms[name]


def measure(options: Options) -> list[Section]:
    with tempfile.TemporaryDirectory(prefix="modelwright-router-") as folder:
        project = _built(Path(folder))
        return [_overhead(project, options), _instances(project, options)]


def _built(folder: Path) -> ProjectConfig:
    root = projects.shipped_project(folder, _MODELS)
    projects.take_store(root)
    timing.build(root)
    for model in _MODELS:
        _add_router(root, f"{model}_router", model)
    for count in (2, 4):
        _add_router(root, f"digits_router_{count}", "digits", count)
    _add_router(root, "digits_router_copies", "digits", more=_SHADOW)
    timing.build(root)
    found = find(root)
    assert found is not None
    return found


def _add_router(root: Path, name: str, model: str, count: int = 1, more: str = "") -> None:
    (root / "builders" / name).mkdir()
    (root / "builders" / name / "model.yaml").write_text(_ROUTER.format(model=model, count=count, more=more))


def _overhead(project: ProjectConfig, options: Options) -> Section:
    rows = []
    for model, protocol, in_flight in _CASES:
        found = _compared(project, model, [f"{model}_router"], protocol, in_flight, options)
        label = f"`{model}`, {'HTTP' if protocol == 'http' else 'gRPC'}, {in_flight} in flight"
        rows.append([label, *_cells(found[model], found[f"{model}_router"])])
    return Section(
        "router: what it costs",
        f"A router of one instance against the model that it sends all requests to: {_rounds(options)} rounds in turns "
        f"of {_seconds(options):g} s each, closed loop, one client process; client and server share the cores. "
        "Throughput, p50 and p99 of the router are ratios to the model's; CPU is that of the server's processes, a "
        f"request. Load average {load()}.",
        _HEADER,
        rows,
    )


def _instances(project: ProjectConfig, options: Options) -> Section:
    routers = {
        "digits_router": "1 instance",
        "digits_router_2": "2 instances",
        "digits_router_4": "4 instances",
        "digits_router_copies": "1 instance, and copies of a tenth to a shadow",
    }
    found = _compared(project, "digits", list(routers), "grpc", _MOST, options)
    return Section(
        f"router: instances and copies, `digits`, gRPC, {_MOST} in flight",
        f"As above, all in turns. Load average {load()}.",
        _HEADER,
        [[words, *_cells(found["digits"], found[name])] for name, words in routers.items()],
    )


_HEADER = ["", "direct", "p50", "p99", "CPU", "router: throughput", "its p50", "its p99", "its CPU"]


def _cells(direct: _Runs, routed: _Runs) -> list[str]:
    """What the model does, and what the router does of it: ratios of throughput and times, and the CPU of both."""
    pairs = zip(direct.runs, routed.runs, strict=True)
    throughput = statistics.median(other.throughput / one.throughput for one, other in pairs)
    times = [(direct.percentile_ms(name), routed.percentile_ms(name)) for name in ("p50", "p99")]
    return [
        f"{direct.throughput:,.0f} /s",
        *(f"{one:.2f} ms" if one else "-" for one, _ in times),
        f"{direct.cpu_us:,.0f} µs",
        f"{throughput:.2f}",
        *(f"{other / one:.2f}" if one and other else "-" for one, other in times),
        f"{routed.cpu_us:,.0f} µs",
    ]


def _compared(
    project: ProjectConfig,
    model: str,
    routers: Sequence[str],
    protocol: Protocol,
    in_flight: int,
    options: Options,
) -> Mapping[str, _Runs]:
    """The model and its routers, in turns."""
    shape = LoadShape(in_flight, warmup_s=0.5, duration_s=_seconds(options))
    with _served(project, [model, *routers], protocol) as (url, pid), tempfile.TemporaryDirectory() as folder:
        workloads = {name: Workload(url, name, repository=str(project.repository)) for name in (model, *routers)}
        with GeneratorProcesses(workloads, 1, Path(folder)) as generators:
            takers: dict[str, Callable[[], _Run]] = {
                name: lambda name=name: _run(lambda: generators.run(name, shape, Watch()), pid)  # type: ignore[misc]
                for name in workloads
            }
            runs: dict[str, list[_Run]] = {}
            for number in range(_rounds(options)):
                for name in list(takers)[:: 1 if number % 2 == 0 else -1]:
                    runs.setdefault(name, []).append(takers[name]())
    return {name: _Runs(rounds) for name, rounds in runs.items()}


def _run(ask: Callable[[], Phase], pid: int) -> _Run:
    before_s = _cpu_s(pid)
    phase = ask()
    spent_s = _cpu_s(pid) - before_s
    rows, good = phase.record.rows(), phase.measured()
    if len(good) == 0 or (rows["code"] != 0).any():
        raise RuntimeError(f"{(rows['code'] != 0).sum()} of {len(rows)} requests failed: {phase.record.failures}")
    seconds = (phase.until_ns - phase.start_ns) * 1e-9
    return _Run(len(good) / seconds, spent_s * 1e6 / len(rows), good["end_ns"] - good["start_ns"])


def _cpu_s(pid: int) -> float:
    """CPU seconds of the server and its model processes."""
    server = psutil.Process(pid)
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(item.user + item.system for item in times)


@contextmanager
def _served(project: ProjectConfig, models: Sequence[str], protocol: Protocol) -> Iterator[tuple[str, int]]:
    """(URL, process) of a server with these models."""
    wanted: dict[str, Sequence[int]] = {name: [] for name in models}
    log = project.logs / "benchmark.log"
    with local(project, project.repository, wanted, protocol, log, lambda _: None) as server:
        assert server.local
        yield server.local.grpc if protocol == "grpc" else server.local.http, server.local.pid


def _rounds(options: Options) -> int:
    return 2 if options.quick else 5


def _seconds(options: Options) -> float:
    return 1.0 if options.quick else 2.0
