"""Measures models on one server with one set of generator processes.

with server_for(setting, {"digits": []}) as server, lab(setting, server, {"digits": workload}) as bench:
    bench.measure("digits", Shape(concurrency=32))
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelwright import extras
from modelwright.errors import LoadError
from modelwright.loadtest.document import Measurement
from modelwright.loadtest.generator.processes import GeneratorProcesses, Phase
from modelwright.loadtest.measure import servers
from modelwright.loadtest.measure.ceiling import Ceilings
from modelwright.loadtest.measure.measurement import MAX_LAG, label_of, load_of, measurement, target_of
from modelwright.loadtest.measure.observer import Observer
from modelwright.loadtest.measure.progress import Progress
from modelwright.loadtest.measure.server_side import difference, with_cpu
from modelwright.loadtest.measure.servers import ServerUnderTest
from modelwright.loadtest.measure.usage import Usage, cpu_s, usage
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.project.project import ProjectConfig
from modelwright.triton.client import Client, connect


@dataclass(frozen=True)
class Setting:
    """What all measurements of one command share. `workload` is a template without URL and model."""

    project: ProjectConfig
    repository: Path
    workload: Workload
    progress: Progress = field(default_factory=Progress)
    url: str | None = None
    protocol: str | None = None
    processes: int = 1


def check_installed() -> None:
    """Raise LoadError where the generator processes would miss a module."""
    extras.require("a load test", "load", LoadError)


@contextlib.contextmanager
def server_for(
    setting: Setting, wanted: Mapping[str, Sequence[int]], repository: Path | None = None
) -> Iterator[ServerUnderTest]:
    """The server at the given URL; without one, a local server with these models. Raises LoadError."""
    check_installed()
    if setting.url:
        yield servers.remote(setting.url, setting.protocol, setting.repository, setting.workload.access)
        return
    log = setting.project.logs / "load.log"
    where = repository or setting.repository
    with servers.local(setting.project, where, wanted, setting.protocol or "http", log, setting.progress.say) as server:
        yield server


@dataclass
class Lab:
    """Measurements on one server. `workloads` are the generators' targets, by name."""

    setting: Setting
    server: ServerUnderTest
    client: Client
    generators: GeneratorProcesses
    workloads: Mapping[str, Workload]
    ceilings: Ceilings = field(default_factory=Ceilings)
    server_info: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False  # Ctrl-C ended the last measurement

    def measure(
        self, name: str, shape: LoadShape, label: str = "", seed: int | None = None, max_lag: float = MAX_LAG
    ) -> Measurement:
        """One measurement of a target; `seed` is the workload's unless given.

        Incomplete after Ctrl-C, or where the server or a generator process ended.
        """
        workload = self.workloads[name]
        before = self._usage()
        phase, observer = self._phase(name, shape, label, workload.seed if seed is None else seed)
        spent_s = cpu_s(before, self._usage())
        self.interrupted = phase.interrupted
        load = load_of(shape, workload.batch, self.setting.processes)
        # After a phase that was cut short the processes still send, or have ended: they cannot measure the ceiling.
        ceiling = self.ceilings.of(self.generators, name, workload) if phase.complete else None
        return measurement(
            label or label_of(load),
            target_of(workload, self.generators.targets[name]),
            load,
            phase,
            with_cpu(difference(observer.before, observer.after), spent_s, phase.record),
            ceiling,
            max_lag,
        )

    def _usage(self) -> Usage | None:
        return usage(self.server.pid) if self.server.pid else None

    def _phase(self, name: str, shape: LoadShape, label: str, seed: int) -> tuple[Phase, Observer]:
        workload, version = self.workloads[name], self.generators.targets[name]["version"]
        words = label or label_of(load_of(shape, workload.batch, self.setting.processes))
        with self.setting.progress.display(f"{workload.model} {words}") as display:
            observer = Observer(self.server, self.client, workload.model, version, display)
            return self.generators.run(name, shape, observer, seed), observer


@contextlib.contextmanager
def lab(setting: Setting, server: ServerUnderTest, workloads: Mapping[str, Workload]) -> Iterator[Lab]:
    """A lab with generator processes for these workloads. Raises LoadError if one does not fit the server."""
    repository = str(server.repository or "")
    placed = {name: replace(item, url=server.url, repository=repository) for name, item in workloads.items()}
    with (
        TemporaryDirectory(prefix="modelwright-load-") as folder,
        connect(server.url, timeout_s=30, access=setting.workload.access) as client,
        GeneratorProcesses(placed, setting.processes, Path(folder)) as generators,
    ):
        yield Lab(setting, server, client, generators, placed, server_info=client.server())
