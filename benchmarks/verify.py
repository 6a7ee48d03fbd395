"""How long a replay of all golden samples on the real server takes. No aim: it is here to be noticed when it grows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import projects, timing
from benchmarks.options import Options
from benchmarks.table import Section, load
from modelwright.operations import replay
from modelwright.project.project import ProjectConfig
from modelwright.project.project import load as load_project
from modelwright.repository.repository import Repository
from modelwright.repository.versions import published
from modelwright.server import environment
from modelwright.server.local import running

Times = dict[str, list[float]]


def measure(options: Options) -> list[Section]:
    rounds = options.rounds(5)
    taken: Times = {}
    with tempfile.TemporaryDirectory(prefix="modelwright-verify-") as folder:
        root = projects.shipped_project(Path(folder) / "project")
        projects.take_store(root)
        timing.build(root)
        project = load_project(root)
        for _ in range(rounds):
            _start_empty(project, taken)
            versions = _replay_all(project, taken)
            with _timed("`modelwright verify`, the whole process", taken):
                timing.run([timing.MODELWRIGHT, "verify"], root)
    rows = []
    for name, times_s in taken.items():
        best_s, median_s = timing.best_and_median(times_s)
        rows.append([name, timing.seconds(best_s), timing.seconds(median_s)])
    method = f"{versions} versions, their golden samples over HTTP and gRPC; {rounds} rounds. Load average {load()}."
    return [Section("verify: the shipped models on the real server", method, ["", "best", "median"], rows)]


def _start_empty(project: ProjectConfig, taken: Times) -> None:
    made = environment.ensure(project.server, project.target, lambda _: None)
    with _timed("start of tritonserver, no model", taken):
        server = running(made, project.repository, log=project.logs / "bench.log", stop_grace_s=0)
        server.__enter__()
    server.__exit__(None, None, None)


def _replay_all(project: ProjectConfig, taken: Times) -> int:
    repository = Repository.of(project)
    versions = published(repository)
    serving = replay.serving_all(project, versions, project.logs / "bench.log", lambda _: None)
    with _timed("start, every version loaded", taken):
        local = serving.__enter__()
    try:
        for url in local.urls:
            with _timed(f"replay over {url.partition(':')[0]}", taken):
                results = replay.replay(repository, versions, [url], local.refused)
            replay.check(results)
    finally:
        with _timed("stop", taken):
            serving.__exit__(None, None, None)
    return len(versions)


@contextmanager
def _timed(name: str, taken: Times) -> Iterator[None]:
    started = time.perf_counter()
    yield
    taken.setdefault(name, []).append(time.perf_counter() - started)
