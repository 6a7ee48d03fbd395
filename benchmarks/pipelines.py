"""Pipelines that move as one: `python -m benchmarks pipelines`.

A tokenizer and an encoder change together, and neither fits the other's older version. Under load the pipeline is
published and rolled back, again and again: what fails, and what answers as no version does? And what does it cost to
serve several versions of a pipeline at once?
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks import pipeline_models, projects
from benchmarks.load_client import Golden, Load, LoadClient, Rows
from benchmarks.options import Options
from benchmarks.servers import Mode, serving
from benchmarks.table import Section, load
from modelwright import Project
from modelwright.build.build import build
from modelwright.build.inline import InlineExecutor
from modelwright.build.listener import Listener
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.repository.manifest import read
from modelwright.server.local import RunningServer
from modelwright.triton.client import Client, connect
from modelwright.triton.layout import GOLDEN, MANIFEST
from modelwright.verification.golden import load_golden

PIPE = "pipe"
KEPT = "kept"  # the same pipeline with `keep: 3`
CYCLES = 50  # in all, half of them on each server
SHARE = 0.9  # of the capacity
_IN_FLIGHT = 32  # of the closed loop that finds the capacity
_PATIENCE_S = 60.0
_LOOK_S = 0.05

MODES: tuple[Mode, ...] = ("poll", "explicit")


@dataclass(frozen=True)
class Pauses:
    """Seconds of load to find the capacity before a cycle, and after each change."""

    capacity_s: float = 1.5
    between_s: float = 1.0


@dataclass(frozen=True)
class Found:
    """What the loads of one server came to, one of each cycle."""

    mode: Mode
    capacities: Sequence[float]  # requests/s, of each cycle
    loads: Sequence[Load]
    wrong: Sequence[str]

    @property
    def requests(self) -> int:
        return sum(len(done.rows) for done in self.loads)

    @property
    def failed(self) -> int:
        return sum(done.failed for done in self.loads)

    @property
    def lates_ms(self) -> Rows:
        """From the intended send to the answer."""
        return np.concatenate([(done.succeeded["end_ns"] - done.succeeded["intended_ns"]) / 1e6 for done in self.loads])


@dataclass(frozen=True)
class Cost:
    """The same pipeline in two forms, in turns: requests/s and the median latency of each round."""

    in_flight: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)


def measure(options: Options) -> list[Section]:
    cycles, pauses, rounds = (4, Pauses(0.5, 0.2), 1) if options.quick else (CYCLES, Pauses(), 5)
    with tempfile.TemporaryDirectory(prefix="modelwright-pipelines-") as folder:
        root = Path(folder) / "moving"
        moved = moves(root, cycles, pauses)
        costs = kept_costs(Path(folder) / "kept", rounds, 0.5 if options.quick else 2.0)
    return [_moved_section(moved), _cost_section(costs)]


# --- published and rolled back under load -----------------------------------------------------------------------------


def moves(root: Path, cycles: int, pauses: Pauses) -> list[Found]:
    """Publish and roll back, `cycles` times in all, on a server that polls and on one in explicit mode."""
    projects.empty_project(root)
    generations = range(1, cycles // len(MODES) + 1)
    for generation in generations:  # so that a publish under load runs no step
        _publish(root, generation)
    found = []
    for mode in MODES:
        for name in ("model_repository", "model_history"):
            shutil.rmtree(root / name)
        _publish(root, 0)
        found.append(_moved(root, mode, generations, pauses))
    return found


def _publish(root: Path, generation: int) -> int:
    """Build a generation, in this process; the version of the pipeline."""
    pipeline_models.write(root, generation)
    built = build(Project.find(root).config, (), Listener(), start_executor=InlineExecutor)
    outcomes = {outcome.model: outcome for outcome in built}
    failed = [str(outcome.error or outcome.reason) for outcome in outcomes.values() if outcome.status != "new"]
    version = outcomes[PIPE].version
    if failed or version is None:
        raise RuntimeError(f"generation {generation} was not published: {'; '.join(failed)}")
    return version


def _moved(root: Path, mode: Mode, generations: Sequence[int], pauses: Pauses) -> Found:
    project = Project.find(root)
    goldens = {1: _golden(project.repository / PIPE / "1")}
    workload = Workload("", PIPE, payload="golden", repository=str(project.repository), check_every=1)
    with (
        serving(project.config, mode, f"pipelines-{mode}") as server,
        _client(server, workload) as client,
        connect(server.http) as control,
    ):
        loads, capacities = [], []
        for generation in generations:
            most = client.load("capacity", LoadShape(_IN_FLIGHT, duration_s=pauses.capacity_s))
            capacities.append(len(most.succeeded) / pauses.capacity_s)
            client.begin("cycle", LoadShape(rate=SHARE * capacities[-1], duration_s=0))
            time.sleep(pauses.between_s)
            version = _publish(root, generation)
            goldens[version] = _golden(project.repository / PIPE / str(version))
            _follow(control, mode, version)
            time.sleep(pauses.between_s)
            project.rollback(PIPE, why="benchmark")
            _follow(control, mode, 1)
            time.sleep(pauses.between_s)
            loads.append(client.end())
    return Found(mode, capacities, loads, [line for done in loads for line in done.wrong(goldens.get)])


@contextmanager
def _client(server: RunningServer, workload: Workload) -> Iterator[LoadClient]:
    with (
        tempfile.TemporaryDirectory(prefix="modelwright-pipelines-") as folder,
        LoadClient(replace(workload, url=f"grpc://{server.grpc}"), Path(folder)) as client,
    ):
        yield client


def _follow(control: Client, mode: Mode, version: int) -> None:
    """Wait until the server serves this version of the pipeline and no other; in explicit mode, tell it to.

    To load the pipeline is enough: the server looks at the models that it runs, too.
    """
    if mode == "explicit":
        control.load(PIPE)
    deadline = time.monotonic() + _PATIENCE_S
    while _ready(control) != [version]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{PIPE}: version {version} is not served alone after {_PATIENCE_S:g} s")
        time.sleep(_LOOK_S)


def _ready(control: Client) -> list[int]:
    return [int(entry.version) for entry in control.index() if entry.name == PIPE and entry.state == "READY"]


def _golden(version: Path) -> Golden:
    manifest = read(version / MANIFEST)
    assert manifest is not None
    assert manifest.verification.golden is not None
    outputs = load_golden(version / GOLDEN)[1]
    answers = [{name: array[None] for name, array in sample.items()} for sample in outputs]
    return Golden(answers, manifest.verification.golden.tolerance)


# --- what it costs to keep versions -----------------------------------------------------------------------------------


def kept_costs(root: Path, rounds: int, duration_s: float) -> list[Cost]:
    """A plain ensemble and a kept one of the same steps, in turns on one server."""
    projects.empty_project(root)
    pipeline_models.write(root, 0, {PIPE: 1, KEPT: 3})
    project = Project.find(root)
    if failed := [outcome for outcome in project.build() if outcome.error]:
        raise RuntimeError(str(failed[0].error))
    costs = [Cost(in_flight) for in_flight in (1, 8)]
    with serving(project.config, "explicit", "pipelines-explicit") as server:
        for name in (PIPE, KEPT) * rounds:
            workload = Workload("", name, payload="golden", repository=str(project.repository))
            with _client(server, workload) as client:
                client.load("warm-up", LoadShape(4, duration_s=0.3))
                for cost in costs:
                    done = client.load(f"load{cost.in_flight}", LoadShape(cost.in_flight, duration_s=duration_s))
                    took = done.succeeded["end_ns"] - done.succeeded["start_ns"]
                    cost.rates.setdefault(name, []).append(len(took) / duration_s)
                    cost.latencies_ms.setdefault(name, []).append(float(np.median(took)) / 1e6)
    return costs


# --- the tables -------------------------------------------------------------------------------------------------------


def _moved_section(found: Sequence[Found]) -> Section:
    cycles = sum(len(item.loads) for item in found)
    wrong = [line for item in found for line in item.wrong]
    requests, failed = sum(item.requests for item in found), sum(item.failed for item in found)
    kinds = sorted({kind for item in found for done in item.loads for kind in done.failures})
    return Section(
        f"pipelines: a tokenizer and an encoder that change together, published and rolled back {cycles} times",
        f"Open loop over gRPC at {SHARE:.0%} of the capacity measured before each cycle; each publish is a build, "
        f"each rollback `modelwright rollback {PIPE}`. Load average {load()}.",
        ["server", "cycles", "capacity", "requests", "failed", "wrong or mixed", "p50", "p99"],
        [_moved_row(item) for item in found],
        [
            f"{failed:,} of {requests:,} requests failed{': ' + '; '.join(kinds) if kinds else ''}. Every answer was "
            f"compared with the golden one of the version that it names: {len(wrong)} kinds of wrong answers.",
            *wrong[:5],
        ],
    )


def _moved_row(item: Found) -> list[str]:
    return [
        item.mode,
        f"{len(item.loads)}",
        f"{min(item.capacities):,.0f} to {max(item.capacities):,.0f}/s",
        f"{item.requests:,}",
        f"{item.failed:,}",
        f"{len(item.wrong)}",
        f"{np.median(item.lates_ms):.1f} ms",
        f"{np.percentile(item.lates_ms, 99):.1f} ms",
    ]


def _cost_section(costs: Sequence[Cost]) -> Section:
    rows = []
    for cost in costs:
        plain, kept = statistics.median(cost.latencies_ms[PIPE]), statistics.median(cost.latencies_ms[KEPT])
        rates = [statistics.median(cost.rates[name]) for name in (PIPE, KEPT)]
        rows.append(
            [
                f"{cost.in_flight}",
                f"{rates[0]:,.0f}/s",
                f"{rates[1]:,.0f}/s",
                f"{plain:.2f} ms",
                f"{kept:.2f} ms",
                f"{kept - plain:.2f} ms",
            ]
        )
    return Section(
        "pipelines: a plain ensemble, and the same steps with `keep: 3`",
        f"In turns on one server, closed loop over gRPC, 4 instances of the kept one. Load average {load()}.",
        ["in flight", "ensemble", "kept", "ensemble p50", "kept p50", "more"],
        rows,
    )
