"""Measures one contest: in processes, then in the server; the result is a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from modelwright import __version__, tools
from modelwright.bench.child import Load
from modelwright.bench.children import Child, ContenderError, children
from modelwright.bench.contenders import COMPILED, EAGER, Contender, Contest
from modelwright.bench.document import BenchResult, ContenderResult, ServedThroughput
from modelwright.bench.inputs import alike, batch_of, batch_sizes, check_batches, described, sized
from modelwright.bench.others import Others, busy_note
from modelwright.bench.rounds import BenchPlan, Turns, batch_latency, speedup, take_turns
from modelwright.bench.served import ServedPlan, against, measure_served, throughput
from modelwright.errors import LoadError, ModelwrightError
from modelwright.loadtest.measure.lab import Setting
from modelwright.loadtest.report.output import machine_facts
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository
from modelwright.triton.layout import GOLDEN
from modelwright.triton.tensors import Tensors
from modelwright.verification.golden import load_golden

Say = Callable[[str], object]
_LIBRARIES = ("onnxruntime", "torch")


@dataclass(frozen=True)
class Asked:
    """What a bench is to measure. `batches`: none for those of the builder; without `served` the server is left out."""

    plan: BenchPlan = field(default_factory=BenchPlan)
    served: ServedPlan | None = field(default_factory=ServedPlan)
    batches: Sequence[int] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)  # of dynamic dimensions
    compiled: bool = True  # whether torch.compile takes part
    command: Sequence[str] = ()


@dataclass
class _Measured:
    """What is known so far; `reasons` are those of contenders that dropped out."""

    turns: Turns = field(default_factory=Turns)
    memory: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # of what has no manifest
    served: dict[str, ServedThroughput] = field(default_factory=dict)
    not_served: dict[str, str] = field(default_factory=dict)
    served_with: str = ""
    others_cores: float | None = None
    notes: list[str] = field(default_factory=list)


def bench(project: ProjectConfig, contest: Contest, asked: Asked, setting: Setting) -> BenchResult:
    """Measure a contest. Raises LoadError for what was asked for and cannot be, before anything is measured.

    A contender that cannot be measured is a row with the reason.
    """
    if not asked.compiled:
        contest = replace(contest, contenders=tuple(item for item in contest.contenders if item.name != COMPILED))
    samples = _samples(project, contest, asked.sizes)
    batches = _batches(contest, asked.batches)
    measured, say = _Measured(), setting.progress.say
    if batches:
        _in_processes(project, contest, samples, batches, asked.plan, measured, say)
    if asked.served:
        _in_server(contest, samples, asked.served, setting, measured)
    return _result(contest, asked, batches, samples, measured)


def _samples(project: ProjectConfig, contest: Contest, sizes: Mapping[str, int]) -> list[Tensors]:
    """Golden samples, of the plain model or else of the first variant that is published; all of one size."""
    repository = Repository.of(project)
    there = [item.row for item in contest.contenders if item.row.model and item.row.version is not None]
    there.sort(key=lambda row: row.model != contest.model)
    for row in there:
        golden = repository.folder(str(row.model), int(row.version or 0)) / GOLDEN
        if golden.is_file():
            return alike(sized(load_golden(golden)[0], contest.builder.spec.inputs, sizes))
    hint = "give the builder `samples`, and build it again"
    raise LoadError(f"{contest.model}: no published version has golden samples to measure with", hint)


def _batches(contest: Contest, wanted: Sequence[int]) -> dict[str, list[int]]:
    """The batch sizes of each contender that runs in a process. Variants may take fewer rows than the others."""
    largest = {item.name: item.largest for item in contest.contenders if item.load}
    if wanted:
        sizes = check_batches(wanted, largest)
        return dict.fromkeys(largest, sizes)
    sizes = batch_sizes(contest.builder, max(largest.values(), default=0))
    return {name: [size for size in sizes if size <= max(most, 1)] for name, most in largest.items()}


def _in_processes(
    project: ProjectConfig,
    contest: Contest,
    samples: Sequence[Tensors],
    batches: Mapping[str, Sequence[int]],
    plan: BenchPlan,
    measured: _Measured,
    say: Say,
) -> None:
    loads: dict[str, Load] = {item.name: item.load for item in contest.contenders if item.load}
    batched = {item.name: item.largest > 0 for item in contest.contenders}
    log = project.logs / f"bench-{contest.model}.log"
    with children(loads, plan.threads, project.state / "cache", log) as running:
        reasons: dict[str, str] = {}
        for name, child in running.items():
            say(f"{contest.model}: preparing {name}")
            try:
                child.load()
                for batch in batches[name]:
                    child.prepare(batch, batch_of(samples, batch, batched=batched[name]), plan.warmup_s)
            except ContenderError as error:
                reasons[name] = str(error)
                child.close()  # it must not use the machine while others are measured
        fit: dict[str, Child] = {name: child for name, child in running.items() if name not in reasons}
        with Others(lambda: sum(child.cpu_s for child in fit.values())) as others:
            measured.turns = take_turns(fit, batches, plan, say)
        measured.turns.failed |= reasons
        measured.memory = {name: child.memory_bytes for name, child in fit.items() if child.memory_bytes is not None}
        measured.others_cores = others.cores
        if EAGER in fit and EAGER not in measured.turns.failed and contest.builder.spec.evaluate:
            say(f"{contest.model}: evaluating {EAGER}")
            try:
                measured.metrics[EAGER] = fit[EAGER].metrics()
            except ContenderError as error:
                measured.notes.append(f"{EAGER} was not evaluated: {error}")


def _in_server(
    contest: Contest, samples: Sequence[Tensors], plan: ServedPlan, setting: Setting, measured: _Measured
) -> None:
    """A server that does not start is a note: what was measured in processes is kept."""
    versions = {str(row.model): int(row.version) for row in _served_rows(contest) if row.version is not None}
    if not versions:
        return
    try:
        found = measure_served(setting, versions, samples, plan)
    except ModelwrightError as error:
        measured.not_served = dict.fromkeys(versions, error.message)
        measured.notes.append(f"not measured in the server: {error.message}")
        return
    measured.served_with = found.described
    for model, rounds in found.measured.items():
        value = throughput(rounds, plan.seed)
        if isinstance(value, str):
            measured.not_served[model] = value
        else:
            measured.served[model] = value


def _served_rows(contest: Contest) -> list[ContenderResult]:
    return [item.row for item in contest.contenders if item.is_served]


# --- the document -----------------------------------------------------------------------------------------------------


def _result(
    contest: Contest,
    asked: Asked,
    batches: Mapping[str, Sequence[int]],
    samples: Sequence[Tensors],
    measured: _Measured,
) -> BenchResult:
    rows = [_row(item, measured, asked.plan.seed) for item in contest.contenders]
    source = _source(contest, rows)
    served_source = contest.model if contest.model in measured.served else ""
    return BenchResult(
        model=contest.model,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        modelwright=__version__,
        command=list(asked.command),
        machine=machine_facts(is_local=True),
        instruction_set=tools.instruction_set(),
        versions={name: found for name in _LIBRARIES if (found := tools.version(name))},
        threads=asked.plan.threads,
        batches=sorted({size for sizes in batches.values() for size in sizes}),
        rounds=asked.plan.rounds,
        seed=asked.plan.seed,
        inputs=described(samples, asked.sizes),
        others_cores=measured.others_cores,
        source=source,
        served_source=served_source,
        served_with=measured.served_with,
        notes=[*busy_note(measured.others_cores), *measured.notes],
        contenders=[_against(row, rows, source, served_source, asked.plan.seed) for row in rows],
    )


def _row(contender: Contender, measured: _Measured, seed: int) -> ContenderResult:
    name = contender.name
    reason = measured.turns.failed.get(name) or contender.row.reason
    calls = sorted((batch, rounds) for (other, batch), rounds in measured.turns.calls_ns.items() if other == name)
    return contender.row.model_copy(
        update={
            "reason": reason,
            "not_served": measured.not_served.get(name) or contender.row.not_served,
            "memory_bytes": measured.memory.get(name),
            "metrics": measured.metrics.get(name, contender.row.metrics),
            "latencies": [batch_latency(batch, rounds, seed) for batch, rounds in calls],
            "served": measured.served.get(name),
        }
    )


def _source(contest: Contest, rows: Sequence[ContenderResult]) -> str:
    """What speed-ups are against: the source in PyTorch if it was measured, else the plain model."""
    eager = next((row for row in rows if row.name == EAGER and row.latencies), None)
    return EAGER if eager else contest.model


def _against(
    row: ContenderResult, rows: Sequence[ContenderResult], source: str, served_source: str, seed: int
) -> ContenderResult:
    """The row with its ratios to the source's."""
    by_name = {other.name: other for other in rows}
    latencies = []
    for latency in row.latencies:
        reference = by_name[source].at(latency.batch)
        if row.name != source and reference is not None:
            ratio = speedup(reference.rounds_ms, latency.rounds_ms, seed)
            latency = latency.model_copy(update={"speedup": ratio})
        latencies.append(latency)
    served = row.served
    plain = by_name[served_source].served if served_source else None
    if served is not None and plain is not None and row.name != served_source:
        served = against(plain, served, seed)
    return row.model_copy(update={"latencies": latencies, "served": served})
