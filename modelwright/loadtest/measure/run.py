"""`load run`, `load sweep` and `load slo`: which measurements are made, and what follows from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modelwright.errors import LoadError
from modelwright.loadtest.document import Measurement, SloResult
from modelwright.loadtest.measure.lab import Lab, Setting, lab, server_for
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.measure.measurement import label_of, load_of
from modelwright.loadtest.measure.servers import ServerUnderTest
from modelwright.loadtest.payloads.workload import LoadShape
from modelwright.repository.repository import Repository

_RESOLUTION = 0.05  # of a rate: the search ends at this precision
_MAX_PROBES = 10
_LOWEST = 1 / 20  # of the first probe's rate: if the objective fails there, the load is not the cause
_CAPACITY = LoadShape(concurrency=32, warmup_s=0.5, duration_s=2.0)


@dataclass
class Findings:
    """Results so far; kept if the command is interrupted."""

    listener: Callable[[Measurement], None]
    measurements: list[Measurement] = field(default_factory=list)
    server: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped: str = ""  # why measurements that were planned are missing
    interrupted: bool = False  # by Ctrl-C

    @property
    def complete(self) -> bool:
        return not self.stopped and all(measurement.complete for measurement in self.measurements)

    def add(self, measurement: Measurement) -> Measurement:
        self.measurements.append(measurement)
        self.listener(measurement)
        return measurement

    def measure(self, bench: Lab, name: str, shape: LoadShape, label: str = "", **options: Any) -> Measurement:
        """One more measurement, kept."""
        measurement = bench.measure(name, shape, label, **options)
        self.interrupted = self.interrupted or bench.interrupted
        return self.add(measurement)

    def note(self, model: str, notes: Sequence[str]) -> None:
        """Notes on a model's payloads, each once."""
        self.notes += [note for text in notes if (note := f"{model}: {text}") not in self.notes]


@dataclass(frozen=True)
class Subject:
    """Which models and version ("" for the newest), and how many rows a request has."""

    models: Sequence[str]
    version: str = ""
    batches: Sequence[int] = (1,)

    @property
    def wanted(self) -> dict[str, list[int]]:
        return {model: [int(self.version)] if self.version else [] for model in self.models}


def subject(setting: Setting, names: Sequence[str], version: str, batches: Sequence[int]) -> Subject:
    """The named models, or all of the repository."""
    if version and not version.isdigit():
        raise LoadError(f"--version {version}: must be a number", "such as 3; leave it out for the newest")
    models = list(dict.fromkeys(names)) or Repository(setting.repository, setting.project.staging).models()
    if not models:
        hint = "name one" if setting.url else "build one: modelwright build"
        raise LoadError(f"{setting.project.shown(setting.repository)}: no models", hint)
    if version and len(models) > 1:
        raise LoadError(f"--version {version} requires exactly one model", "name one model")
    return Subject(models, version, batches)


def run(setting: Setting, given: Subject, shapes: Sequence[LoadShape], findings: Findings) -> None:
    """Every load shape at every batch size, one model after the other."""
    with server_for(setting, given.wanted) as server:
        for model in given.models:
            with _lab_of(setting, server, given, model, findings) as bench:
                for name, workload in bench.workloads.items():
                    for shape in shapes:
                        label = label_of(load_of(shape, workload.batch, setting.processes))
                        findings.measure(bench, name, shape, f"{model} {label}" if len(given.models) > 1 else label)
                        if not findings.complete:
                            return  # Ctrl-C, or the server has ended


@contextlib.contextmanager
def _lab_of(setting: Setting, server: ServerUnderTest, given: Subject, model: str, findings: Findings) -> Iterator[Lab]:
    """One target for each batch size."""
    template = replace(setting.workload, model=model, version=given.version)
    workloads = {f"batch {rows}": replace(template, batch=rows) for rows in given.batches}
    with lab(setting, server, workloads) as bench:
        findings.server = bench.server_info
        for described in bench.generators.targets.values():
            findings.note(model, described["notes"])
        yield bench


@dataclass(frozen=True)
class Objective:
    """The `percentile` ("p99") of the response time must be at most `max_ms`."""

    percentile: str
    max_ms: float
    highest_rate: float | None = None  # where the search starts; default: the model's capacity


def slo(setting: Setting, given: Subject, shape: LoadShape, objective: Objective, findings: Findings) -> SloResult:
    """The highest rate of an open loop at which the objective holds, by bisection."""
    with server_for(setting, given.wanted) as server:
        (model,) = given.models
        with _lab_of(setting, server, given, model, findings) as bench:
            return _Search(bench, next(iter(bench.workloads)), shape, objective, findings).highest()


def why_failed(measured: Measurement) -> str:
    """The first kinds of failure."""
    return "; ".join(f"{failure.kind}: {failure.message}" for failure in measured.failures[:3])


@dataclass
class _Search:
    bench: Lab
    name: str
    shape: LoadShape
    objective: Objective
    findings: Findings
    probes: list[tuple[float, Measurement, bool]] = field(default_factory=list)

    def highest(self) -> SloResult:
        top = self.objective.highest_rate or self._capacity()
        low, high = 0.0, top * 2  # the first probe is at `top`
        while self.findings.complete and len(self.probes) < _MAX_PROBES:
            rate = (low + high) / 2 if self.probes else top
            if rate < _LOWEST * top:
                break
            if self._holds(rate):
                low = rate
                if rate >= top:
                    break  # the capacity, or the given rate: the search does not go higher
            else:
                high = min(high, rate)
            if low and high - low <= _RESOLUTION * high:
                break
        return self._found(low or None, top)

    def _capacity(self) -> float:
        """Throughput of a closed loop with a full queue: the server cannot serve more."""
        measured = self.findings.measure(self.bench, self.name, _CAPACITY, "capacity: 32 in flight")
        if not measured.throughput:
            raise LoadError(f"{measured.target.model}: no request succeeded", why_failed(measured))
        return measured.throughput

    def _holds(self, rate: float) -> bool:
        """Whether the objective holds at this rate, measured for as long as the percentile needs."""
        needed = NEEDED[self.objective.percentile]
        duration_s = max(self.shape.duration_s, 1.2 * needed / rate)
        shape = replace(self.shape, rate=rate, concurrency=None, duration_s=duration_s)
        label = f"probe {len(self.probes) + 1}: {f'{rate:,.0f}' if rate >= 10 else f'{rate:.2g}'} req/s"
        measured = self.findings.measure(self.bench, self.name, shape, label)
        value = measured.response.percentiles_ms[self.objective.percentile]
        holds = value is not None and value <= self.objective.max_ms and not measured.requests.failed
        self.probes.append((rate, measured, holds))
        return holds

    def _found(self, rate: float | None, top: float) -> SloResult:
        failed = [measured for _, measured, holds in self.probes if not holds]
        by_client = [m for m in failed if m.validity.verdict == "INVALID" and m.complete]
        nearest = by_client[-1:] if by_client and by_client[-1] is failed[-1] else []
        limited_by = "client" if nearest else "objective" if failed else "rate given"
        what = f"{self.objective.percentile} ≤ {self.objective.max_ms:g} ms"
        if rate is None:
            words = f"{what} did not hold at any rate down to {min(p[0] for p in self.probes):,.0f} requests/s"
        elif limited_by == "rate given":
            words = f"{what} held at {rate:,.0f} requests/s, the highest rate that was tried"
        else:
            words = f"{what} held up to {rate:,.0f} requests/s"
        if nearest:
            words += f"; above that the client was the limit: {nearest[0].validity.reasons[0]}"
        return SloResult(
            percentile=self.objective.percentile,
            objective_ms=self.objective.max_ms,
            rate=rate,
            probes=[measured.label for _, measured, _ in self.probes],
            held=[holds for _, _, holds in self.probes],
            limited_by=limited_by,
            explanation=words,
        )
