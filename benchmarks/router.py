"""What a router costs: `python -m benchmarks router`. The same requests to a model, and to a router in front of it."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

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
_MODELS = ("digits", "minilm")
_IN_FLIGHT = (1, 8, 32)
_SHADOW = "  shadow: [{model: digits, version: 1, fraction: 0.1}]\n"

Protocol = Literal["http", "grpc"]


@dataclass(frozen=True)
class _Run:
    throughput: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class _Against:
    """Medians of rounds in which both took turns; ratios are of one round's runs."""

    direct: _Run
    throughput: float
    p50: float
    p99: float


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
    for model in _MODELS:
        for protocol, in_flight in ((protocol, count) for protocol in ("http", "grpc") for count in _IN_FLIGHT):
            (found,) = _compared(project, model, [f"{model}_router"], protocol, in_flight, options).values()
            rows.append([f"`{model}`, {_words(protocol)}, {in_flight} in flight", *_cells(found)])
    return Section(
        "router: what it costs",
        f"A router of one instance against the model that it sends all requests to: {_rounds(options)} rounds in turns "
        f"of {_seconds(options):g} s each, closed loop, one client process; client and server share the cores. "
        f"Load average {load()}.",
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
    found = _compared(project, "digits", list(routers), "grpc", _IN_FLIGHT[-1], options)
    return Section(
        f"router: instances and copies, `digits`, gRPC, {_IN_FLIGHT[-1]} in flight",
        f"As above, all in turns. Load average {load()}.",
        _HEADER,
        [[words, *_cells(found[name])] for name, words in routers.items()],
    )


_HEADER = ["", "direct", "p50", "p99", "router: throughput ×", "p50 ×", "p99 ×"]  # noqa: RUF001


def _cells(found: _Against) -> list[str]:
    return [
        f"{found.direct.throughput:,.0f} /s",
        f"{found.direct.p50_ms:.2f} ms",
        f"{found.direct.p99_ms:.2f} ms",
        f"{found.throughput:.2f}",
        f"{found.p50:.2f}",
        f"{found.p99:.2f}",
    ]


def _compared(
    project: ProjectConfig,
    model: str,
    routers: Sequence[str],
    protocol: Protocol | str,
    in_flight: int,
    options: Options,
) -> Mapping[str, _Against]:
    """Each router against the model."""
    shape = LoadShape(in_flight, warmup_s=0.5, duration_s=_seconds(options))
    with _served(project, [model, *routers], protocol) as url, tempfile.TemporaryDirectory() as folder:
        workloads = {name: Workload(url, name, repository=str(project.repository)) for name in (model, *routers)}
        with GeneratorProcesses(workloads, 1, Path(folder)) as generators:
            takers: dict[str, Callable[[], _Run]] = {
                name: lambda name=name: _run(generators.run(name, shape, Watch()))  # type: ignore[misc]
                for name in workloads
            }
            runs: dict[str, list[_Run]] = {}
            for number in range(_rounds(options)):
                for name in list(takers)[:: 1 if number % 2 == 0 else -1]:
                    runs.setdefault(name, []).append(takers[name]())
    return {name: _against(runs[model], runs[name]) for name in routers}


def _run(phase: Phase) -> _Run:
    rows = phase.measured()
    good = rows[rows["code"] == 0]
    if len(good) < len(rows) or not len(good):
        raise RuntimeError(f"{len(rows) - len(good)} of {len(rows)} requests failed: {phase.record.failures}")
    percentiles = latency(good["end_ns"] - good["start_ns"]).percentiles_ms
    seconds = (phase.until_ns - phase.start_ns) * 1e-9
    return _Run(len(good) / seconds, percentiles["p50"] or float("nan"), percentiles["p99"] or float("nan"))


def _against(direct: Sequence[_Run], routed: Sequence[_Run]) -> _Against:
    pairs = list(zip(direct, routed, strict=True))
    plain = _Run(*(statistics.median(values) for values in zip(*map(astuple, direct), strict=True)))
    throughput = statistics.median(other.throughput / one.throughput for one, other in pairs)
    p50 = statistics.median(other.p50_ms / one.p50_ms for one, other in pairs)
    return _Against(plain, throughput, p50, statistics.median(other.p99_ms / one.p99_ms for one, other in pairs))


@contextmanager
def _served(project: ProjectConfig, models: Sequence[str], protocol: str) -> Iterator[str]:
    wanted: dict[str, Sequence[int]] = {name: [] for name in models}
    log = project.logs / "benchmark.log"
    with local(project, project.repository, wanted, protocol, log, lambda _: None) as server:
        assert server.local
        yield server.local.grpc if protocol == "grpc" else server.local.http


def _rounds(options: Options) -> int:
    return 2 if options.quick else 5


def _seconds(options: Options) -> float:
    return 1.0 if options.quick else 2.0


def _words(protocol: str) -> str:
    return {"http": "HTTP", "grpc": "gRPC"}[protocol]
