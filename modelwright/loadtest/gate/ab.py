"""`load ab`: measures the rounds of the performance gate. verdict.py decides what they mean.

A round measures the baseline, the baseline again, and the candidate, in random order, in both regimes: first at a fixed
load (open loop), then at saturation (closed loop). Machine, client, payloads and seeds are the same for all. The fixed
load is 70 % of what the baseline can serve, and at most 40 % of what the client can send.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from modelwright.errors import LoadError
from modelwright.loadtest.document import Gate, Measurement
from modelwright.loadtest.gate.differences import differences
from modelwright.loadtest.gate.rounds import FIXED, METRICS, P99, SATURATION, Metric, Side, SideName
from modelwright.loadtest.gate.verdict import ROUNDS, Case, judge, settled, wants_extension
from modelwright.loadtest.measure.lab import Lab, Setting, lab, server_for
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.measure.run import Findings, why_failed
from modelwright.loadtest.measure.servers import ServerUnderTest
from modelwright.loadtest.payloads.workload import LoadShape, Workload
from modelwright.project.spec import Slo
from modelwright.repository.repository import Repository
from modelwright.text import milliseconds
from modelwright.triton.layout import GOLDEN

_SHARE_OF_CAPACITY = 0.7
_SHARE_OF_CEILING = 0.4  # above half of it, a measurement is INVALID
_MAX_LAG = 0.5  # of the p99: service times do not include lag, and both sides have the same client
_SPARE = 1.2  # times a percentile's minimum of requests: arrivals are random
_CONCURRENCY = 32
_SIDES: tuple[SideName, ...] = ("A", "A2", "B")


@dataclass(frozen=True)
class Pairing:
    """Two versions of a model, each with its repository. `slo` has margins, bounds and loads."""

    model: str
    baseline: int
    candidate: int
    baseline_repository: Path
    candidate_repository: Path
    slo: Slo

    @property
    def names(self) -> tuple[str, str]:
        if self.baseline_repository == self.candidate_repository:
            return f"version {self.baseline}", f"version {self.candidate}"
        return (
            f"version {self.baseline} of {self.baseline_repository.name}",
            f"version {self.candidate} of {self.candidate_repository.name}",
        )


@dataclass(frozen=True)
class Plan:
    """How long and how often. `seconds`: of one measurement; longer if a p99 needs it."""

    rounds: int = ROUNDS
    seconds: float = 2.0
    warmup_s: float = 0.2
    seed: int = 7
    metrics: Sequence[Metric] = METRICS  # a regime that none of them needs is not measured


def pairings(
    setting: Setting,
    names: Sequence[str],
    versions: Sequence[int],
    baseline_repository: Path | None,
    slo_of: Callable[[str], Slo],
) -> tuple[list[Pairing], list[str]]:
    """The pairings to compare, and for each model that cannot be compared the reason."""
    if versions and len(names) != 1:
        raise LoadError("--versions requires exactly one model", "name one model")
    if len(versions) not in (0, 2):
        raise LoadError(f"--versions {','.join(map(str, versions))}: give baseline and candidate", "such as 3,4")
    candidates = Repository(setting.repository, setting.project.staging)
    baselines = Repository(baseline_repository, setting.project.staging) if baseline_repository else candidates
    models = list(dict.fromkeys(names)) or [model for model in candidates.models() if model in baselines.models()]
    found, left_out = [], []
    for model in models:
        chosen = _versions(model, baselines, candidates, versions)
        if isinstance(chosen, str):
            left_out.append(chosen)
        else:
            found.append(Pairing(model, *chosen, baselines.root, candidates.root, slo_of(model)))
    if left_out and names:
        raise LoadError("; ".join(left_out), "modelwright status lists what is published")
    return found, left_out


def _versions(model: str, baselines: Repository, candidates: Repository, given: Sequence[int]) -> tuple[int, int] | str:
    old, new = baselines.versions(model), candidates.versions(model)
    if given:
        baseline, candidate = given
        for version, there, root in ((baseline, old, baselines.root), (candidate, new, candidates.root)):
            if version not in there:
                return f"{model}: no version {version} in {root.name}"
        return baseline, candidate
    if baselines.root != candidates.root:
        return (old[-1], new[-1]) if old and new else f"{model}: not in both repositories"
    return (old[-2], old[-1]) if len(old) > 1 else f"{model}: has only one version"


def gate(setting: Setting, found: Sequence[Pairing], plan: Plan, findings: Findings) -> list[Gate]:
    """Measure and judge; undecided models get as many rounds again, once."""
    sides: dict[str, list[Side]] = {pairing.model: [] for pairing in found}
    shapes: dict[str, dict[str, LoadShape]] = {}
    for pairing in found:
        _measure(setting, pairing, plan, sides[pairing.model], findings, shapes)
    first = judge([_case(pairing, sides[pairing.model], plan) for pairing in found], plan.seed)
    extended = wants_extension(first) if findings.complete else []
    if not extended:
        return first
    again = f"measuring {plan.rounds} more, once"
    setting.progress.say(f"undecided after {plan.rounds} rounds: {', '.join(extended)}; {again}")
    for pairing in found:
        if pairing.model in extended:
            _measure(setting, pairing, plan, sides[pairing.model], findings, shapes)
    return settled(first, judge([_case(pairing, sides[pairing.model], plan) for pairing in found], plan.seed))


def _case(pairing: Pairing, sides: Sequence[Side], plan: Plan) -> Case:
    old, new = pairing.baseline_repository / pairing.model, pairing.candidate_repository / pairing.model
    changed = differences(old, pairing.baseline, new, pairing.candidate)
    return Case(pairing.model, *pairing.names, sides, pairing.slo, changed, plan.metrics)


def _measure(
    setting: Setting,
    pairing: Pairing,
    plan: Plan,
    sides: list[Side],
    findings: Findings,
    shapes: dict[str, dict[str, LoadShape]],
) -> None:
    """Add the rounds of one model to `sides`. Stops after a measurement that was cut short.

    `shapes`, by model, are determined once: all rounds of a model have the same loads.
    """
    if not findings.complete:
        return
    with _benches(setting, pairing) as benches:
        findings.server = benches["A"].server_info
        for bench in (benches["A"], benches["B"]):
            for described in bench.generators.targets.values():
                findings.note(pairing.model, described["notes"])
        if pairing.model not in shapes:
            shapes[pairing.model] = _shapes(benches["A"], pairing, plan, findings)
        begun = max((side.round for side in sides), default=0)
        for number in range(begun + 1, begun + plan.rounds + 1):
            _Round(benches, shapes[pairing.model], plan, number, pairing.model, findings).measure(sides)
            if not findings.complete:
                return
            setting.progress.say(_told(pairing.model, number, begun + plan.rounds, sides[-len(_SIDES) :]))


def _told(model: str, number: int, rounds: int, sides: Sequence[Side]) -> str:
    """A round in one line: throughput at saturation, p50 at the fixed load."""
    by_name = {side.side: side for side in sides}
    parts = []
    for words, name in zip(("baseline", "again", "candidate"), _SIDES, strict=True):
        saturation, fixed = by_name[name].saturation, by_name[name].fixed
        figures = [f"{saturation.throughput:,.0f} req/s"] if saturation else []
        figures += [f"p50 {milliseconds(fixed.service.percentiles_ms['p50'])}"] if fixed else []
        parts.append(f"{words} {', '.join(figures)}")
    return f"{model} round {number} of {rounds}: {'; '.join(parts)}"


@dataclass
class _Round:
    benches: dict[SideName, Lab]
    shapes: dict[str, LoadShape]
    plan: Plan
    number: int
    model: str
    findings: Findings
    _made: dict[tuple[SideName, str], Measurement] = field(default_factory=dict)

    def measure(self, sides: list[Side]) -> None:
        order = list(_SIDES)
        Random(f"{self.plan.seed} {self.model} {self.number}").shuffle(order)  # noqa: S311 (an order, no secret)
        for regime in self.shapes:
            for side in order:
                if self.findings.complete:
                    self._made[side, regime] = self._one(side, regime)
        for place, side in enumerate(order, 1):
            saturation, fixed = self._made.get((side, SATURATION)), self._made.get((side, FIXED))
            sides.append(Side(self.number, place, side, saturation, fixed))

    def _one(self, side: SideName, regime: str) -> Measurement:
        bench, label = self.benches[side], f"{self.model} round {self.number} {side} {regime}"
        name = next(iter(bench.workloads)) if len(bench.workloads) == 1 else side[0]
        # All sides of a round have the same arrivals; the next round has others.
        seed = self.plan.seed + self.number
        return self.findings.measure(bench, name, self.shapes[regime], label, seed=seed, max_lag=_MAX_LAG)


def _shapes(bench: Lab, pairing: Pairing, plan: Plan, findings: Findings) -> dict[str, LoadShape]:
    """The two loads, from the measured capacity of the baseline."""
    concurrency = pairing.slo.concurrency or _CONCURRENCY
    saturation = LoadShape(concurrency, warmup_s=plan.warmup_s, duration_s=plan.seconds)
    longer = replace(saturation, warmup_s=1.0, duration_s=max(2.0, plan.seconds))
    capacity = findings.measure(bench, "A", longer, f"{pairing.model} capacity of the baseline")
    if not capacity.throughput:
        raise LoadError(f"{pairing.model}: {pairing.names[0]} answers no request under load", why_failed(capacity))
    rate = pairing.slo.rate or _SHARE_OF_CAPACITY * capacity.throughput
    if capacity.client.ceiling and not pairing.slo.rate:
        rate = min(rate, _SHARE_OF_CEILING * capacity.client.ceiling)
    percentile = "p99" if P99 in plan.metrics or pairing.slo.p99_ms else "p50"
    needed_s = _SPARE * NEEDED[percentile] / rate
    fixed = LoadShape(rate=rate, warmup_s=plan.warmup_s, duration_s=max(plan.seconds, needed_s))
    regimes = {metric.regime for metric in plan.metrics}
    regimes |= {FIXED} if pairing.slo.p50_ms or pairing.slo.p99_ms else set()
    regimes |= {SATURATION} if pairing.slo.throughput_min else set()
    return {name: shape for name, shape in ((FIXED, fixed), (SATURATION, saturation)) if name in regimes}


@contextlib.contextmanager
def _benches(setting: Setting, pairing: Pairing) -> Iterator[dict[SideName, Lab]]:
    """The lab of each side: one server with both versions, or one for each repository."""
    old, new = _workloads(setting, pairing)
    with contextlib.ExitStack() as stack:
        if setting.url or pairing.baseline_repository == pairing.candidate_repository:
            wanted = {pairing.model: [pairing.baseline, pairing.candidate]}
            server = stack.enter_context(server_for(setting, wanted))
            both = stack.enter_context(lab(setting, server, {"A": old, "B": new}))
            yield {"A": both, "A2": both, "B": both}
            return
        first = stack.enter_context(_served(setting, pairing.model, pairing.baseline, pairing.baseline_repository))
        second = stack.enter_context(_served(setting, pairing.model, pairing.candidate, pairing.candidate_repository))
        one = stack.enter_context(lab(setting, first, {"A": old}))
        other = stack.enter_context(lab(setting, second, {"B": new}))
        yield {"A": one, "A2": one, "B": other}


def _served(
    setting: Setting, model: str, version: int, repository: Path
) -> contextlib.AbstractContextManager[ServerUnderTest]:
    return server_for(setting, {model: [version]}, repository)


def _workloads(setting: Setting, pairing: Pairing) -> tuple[Workload, Workload]:
    template = replace(setting.workload, model=pairing.model)
    old = pairing.baseline_repository, pairing.baseline
    return same_requests(template, old, (pairing.candidate_repository, pairing.candidate))


def same_requests(template: Workload, old: tuple[Path, int], new: tuple[Path, int]) -> tuple[Workload, Workload]:
    """The workloads of two versions of a model, each of a repository. Both sides send the same.

    If golden samples differ, those of the old one, without expected answers. Generated values follow the old ones, too.
    """
    golden = [repository / template.model / str(version) / GOLDEN for repository, version in (old, new)]
    is_golden = not (template.payload or template.shapes or template.ranges) and golden[0].is_file()
    if is_golden and not _same_inputs(*golden):
        template = replace(template, payload=str(golden[0]))
    template = replace(template, ranges_of=str(golden[0]))
    return replace(template, version=str(old[1])), replace(template, version=str(new[1]))


def _same_inputs(old: Path, new: Path) -> bool:
    import numpy as np

    from modelwright.verification.golden import load_golden
    from modelwright.verification.samples import pack

    if not new.is_file():
        return False
    first, second = pack(load_golden(old)[0]), pack(load_golden(new)[0])
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
