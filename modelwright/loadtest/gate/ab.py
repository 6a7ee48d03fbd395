"""`load ab`: measures the rounds of the performance gate. calibration.py and verdict.py decide what they mean.

A round measures two sides, in random order: the baseline twice in the rounds of the calibration, the baseline and the
candidate in those of the comparison. Each side is measured at saturation and with one request in flight, both closed
loops, for a fraction of a second: what else the machine does passes by, so many short rounds say more than few long
ones. Machine, client, payloads and seeds are the same for both sides.

A fixed load, an open loop, is measured if it is asked for: by its rate, by `slo.p50_ms` or `slo.p99_ms`, or by the
metric p99. It is 70 % of what the baseline can serve, and at most 40 % of what the client can send. A round is measured
again if the client did not send all of its requests in time.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from modelwright.errors import LoadError
from modelwright.loadtest.document import Gate, Measurement
from modelwright.loadtest.gate.calibration import CALIBRATION, ROUNDS, Noise, noise_of, rounds_for, wants_more
from modelwright.loadtest.gate.differences import differences
from modelwright.loadtest.gate.pairings import Pairing, workloads_of
from modelwright.loadtest.gate.rounds import (
    CPU,
    FIXED,
    FIXED_P99,
    METRICS,
    SATURATION,
    SINGLE,
    Metric,
    Side,
    SideName,
    why_spoiled,
)
from modelwright.loadtest.gate.verdict import LOOK_CONFIDENCE, Case, judge, settled, wants_extension
from modelwright.loadtest.measure.lab import Lab, Setting, lab, server_for
from modelwright.loadtest.measure.latency import NEEDED
from modelwright.loadtest.measure.run import Findings, why_failed
from modelwright.loadtest.measure.servers import ServerUnderTest
from modelwright.loadtest.payloads.workload import LoadShape
from modelwright.text import milliseconds

LIMIT_S = 150.0  # of measuring one model, unless rounds are given
_SHARE_OF_CAPACITY = 0.7
_SHARE_OF_CEILING = 0.4  # above half of it, a measurement is INVALID
_MAX_LAG = 0.5  # of the p99: service times do not include lag, and both sides have the same client
_SPARE = 1.2  # times a percentile's minimum of requests: arrivals are random
_CONCURRENCY = 32
_LONGEST_S = 1.8  # of a measurement that is longer because the model is slow: so that enough rounds fit
_AGAIN = 0.5  # of the planned rounds may be measured again


@dataclass(frozen=True)
class Plan:
    """How long and how often. `seconds`: of one measurement; longer if a percentile needs it.

    Without `rounds`, a comparison has ROUNDS before the first look, as many as the calibration says before the second,
    and LIMIT_S is the limit.
    """

    rounds: int | None = None
    seconds: float = 0.25
    warmup_s: float = 0.05
    seed: int = 7
    metrics: Sequence[Metric] = METRICS  # a regime that none of them needs is not measured
    fixed_load: bool = False  # measured even if no rate and no bound asks for it


@dataclass
class _Progress:
    """What is known of one model so far."""

    pairing: Pairing
    metrics: Sequence[Metric]
    shapes: dict[str, LoadShape] = field(default_factory=dict)  # the same in all rounds
    sides: list[Side] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    looks: tuple[int, ...] = ()  # the rounds of the comparison, all together, after which it is looked at
    spent_s: float = 0.0
    number: int = 0  # of the last round
    compared: int = 0  # rounds of the comparison
    again: int = 0  # rounds that were measured again

    @property
    def next_look(self) -> int:
        return next((rounds for rounds in self.looks if rounds > self.compared), self.compared)

    def case(self) -> Case:
        pairing = self.pairing
        old, new = pairing.baseline_repository / pairing.model, pairing.candidate_repository / pairing.model
        changed = differences(old, pairing.baseline, new, pairing.candidate)
        return Case(pairing.model, *pairing.names, self.sides, pairing.slo, changed, self.metrics, self.notes)


def gate(setting: Setting, found: Sequence[Pairing], plan: Plan, findings: Findings) -> list[Gate]:
    """Measure and judge; models that are undecided get more rounds, once, if there is time."""
    models = [_Progress(pairing, metrics_for(pairing, plan)) for pairing in found]
    for model in models:
        _measure(setting, model, plan, findings)
    first = judge([model.case() for model in models], plan.seed)
    extended = wants_extension(first) if findings.complete else []
    again = [model for model in models if model.pairing.model in extended and _has_time(model, plan)]
    if not again:
        return first
    names = ", ".join(model.pairing.model for model in again)
    setting.progress.say(f"undecided: {names}; measuring more rounds, once")
    for model in again:
        _measure(setting, model, plan, findings)
    return settled(first, judge([model.case() for model in models], plan.seed))


def metrics_for(pairing: Pairing, plan: Plan) -> list[Metric]:
    """Those whose regime is measured. A fixed load is measured if something asks for it."""
    slo = pairing.slo
    asked = plan.fixed_load or slo.rate or slo.p50_ms or slo.p99_ms
    return [metric for metric in plan.metrics if metric.regime != FIXED or asked]


def _has_time(model: _Progress, plan: Plan) -> bool:
    """Whether the rounds before the second look fit into the limit, or most of them."""
    each_s, more = model.spent_s / max(model.number, 1), model.next_look - model.compared
    return plan.rounds is not None or model.spent_s + 0.5 * more * each_s < LIMIT_S


def _measure(setting: Setting, model: _Progress, plan: Plan, findings: Findings) -> None:
    """Add rounds to a model's sides: first a calibration, then a comparison. Stops after one that was cut short."""
    if not findings.complete:
        return
    begun_s = time.monotonic() - model.spent_s
    with _benches(setting, model.pairing) as benches:
        findings.server = benches["A"].server_info
        for bench in (benches["A"], benches["B"]):
            for described in bench.generators.targets.values():
                findings.note(model.pairing.model, described["notes"])
        rounds = _Rounds(setting, model, plan, findings, benches, begun_s)
        if not model.looks:
            rounds.prepare()
            rounds.calibrate()
        rounds.compare()
    model.spent_s = time.monotonic() - begun_s


@dataclass
class _Rounds:
    """The rounds of one model on a running server. `begun_s`: of the monotonic clock, less what was spent before."""

    setting: Setting
    model: _Progress
    plan: Plan
    findings: Findings
    benches: Mapping[SideName, Lab]
    begun_s: float

    def prepare(self) -> None:
        """Determine the loads, and leave out what this server cannot tell."""
        model = self.model
        model.shapes = shapes_of(self.benches["A"], model, self.plan, self.findings)
        unknown = [why for bench in (self.benches["A"], self.benches["B"]) if (why := bench.server.why_no_pid)]
        if unknown and CPU in model.metrics:
            model.metrics = [metric for metric in model.metrics if metric != CPU]
            model.notes.append(f"cpu was not measured: {unknown[0]}")

    def calibrate(self) -> None:
        """The baseline against itself; then `model.looks` says how many rounds the comparison gets."""
        noises, rounds = self._noises(CALIBRATION), CALIBRATION
        while wants_more(noises, rounds) and self.findings.complete and self._spent_s() < LIMIT_S / 3:
            noises, rounds = self._noises(CALIBRATION), rounds + CALIBRATION
        given = self.plan.rounds
        self.model.looks = (given, 2 * given) if given else (ROUNDS, rounds_for(noises))
        gated = [noise.metric.name for noise in noises if noise.gated]
        reported = [noise.metric.name for noise in noises if not noise.gated]
        self.setting.progress.say(
            f"{self.model.pairing.model}: gated: {', '.join(gated) or 'nothing'}"
            + (f"; only reported: {', '.join(reported)}" if reported else "")
            + f"; {self.model.looks[0]} rounds of comparison, up to {self.model.looks[1]} if they leave it undecided"
        )

    def _noises(self, rounds: int) -> list[Noise]:
        self._run(rounds, ("A", "A2"))
        margins = self.model.pairing.slo.margins
        return [
            noise_of(self.model.sides, metric, getattr(margins, metric.name), self.plan.seed, LOOK_CONFIDENCE)
            for metric in self.model.metrics
        ]

    def compare(self) -> None:
        """As many rounds as the next look wants."""
        self.model.compared += self._run(self.model.next_look - self.model.compared, ("A", "B"))

    def _run(self, rounds: int, names: tuple[SideName, SideName]) -> int:
        """The number of rounds that were measured: fewer than asked for when time is over, or after a failure."""
        done, longest_s = 0, 0.0
        while done < rounds and self.findings.complete and self._in_time(longest_s):
            begun_s = time.monotonic()
            sides = self._round(names)
            longest_s = max(longest_s, time.monotonic() - begun_s)
            spoiled = self._spoiled(sides)
            if spoiled and self.model.again < _AGAIN * max(rounds, CALIBRATION):
                self.model.again += 1
                self._note(f"round {self.model.number} was measured again: {spoiled}")
                continue
            self.model.sides += sides
            done += 1
            self.setting.progress.say(_told(self.model, rounds, done, sides))
        return done

    def _in_time(self, next_s: float) -> bool:
        """Whether one more round fits."""
        if self.plan.rounds is not None or self._spent_s() + next_s < LIMIT_S:
            return True
        self._note(f"stopped measuring after {LIMIT_S:g} s; --rounds N measures N rounds, however long they take")
        return False

    def _spent_s(self) -> float:
        return time.monotonic() - self.begun_s

    def _round(self, names: tuple[SideName, SideName]) -> list[Side]:
        self.model.number += 1
        order = list(names)
        Random(f"{self.plan.seed} {self.model.pairing.model} {self.model.number}").shuffle(order)  # noqa: S311 (an order, no secret)
        made: dict[SideName, dict[str, Measurement]] = {name: {} for name in order}
        for regime in self.model.shapes:
            for side in order:
                if self.findings.complete:
                    made[side][regime] = self._one(side, regime)
        return [Side(self.model.number, place, side, made[side]) for place, side in enumerate(order, 1)]

    def _one(self, side: SideName, regime: str) -> Measurement:
        bench, label = self.benches[side], f"{self.model.pairing.model} round {self.model.number} {side} {regime}"
        name = next(iter(bench.workloads)) if len(bench.workloads) == 1 else side[0]
        # All sides of a round have the same arrivals; the next round has others.
        seed = self.plan.seed + self.model.number
        return self.findings.measure(bench, name, self.model.shapes[regime], label, seed=seed, max_lag=_MAX_LAG)

    def _spoiled(self, sides: Sequence[Side]) -> str:
        """Why the client spoiled the round; "" if it did not, or if a version failed requests: these count."""
        for side in sides:
            for measurement in side.measurements.values():
                if not measurement.complete or measurement.requests.failed > measurement.requests.not_sent:
                    return ""
        found = [why for side in sides for item in side.measurements.values() if (why := why_spoiled(item))]
        return found[0] if found else ""

    def _note(self, note: str) -> None:
        if note not in self.model.notes:
            self.model.notes.append(note)


def _told(model: _Progress, rounds: int, done: int, sides: Sequence[Side]) -> str:
    """A round in one line."""
    words = {"A": "baseline", "A2": "again", "B": "candidate"}
    parts = []
    for side in sorted(sides, key=lambda side: side.side):
        saturation = side.measured(SATURATION)
        latency = side.measured(SINGLE) or side.measured(FIXED)
        figures = [f"{saturation.throughput:,.0f} req/s"] if saturation else []
        figures += [f"p50 {milliseconds(latency.service.percentiles_ms['p50'])}"] if latency else []
        parts.append(f"{words[side.side]} {', '.join(figures)}")
    what = "calibration" if any(side.side == "A2" for side in sides) else "round"
    return f"{model.pairing.model} {what} {done} of {rounds}: {'; '.join(parts)}"


def shapes_of(bench: Lab, model: _Progress, plan: Plan, findings: Findings) -> dict[str, LoadShape]:
    """The loads that the metrics and the bounds need, from the measured capacity of the baseline."""
    slo, name = model.pairing.slo, model.pairing.model
    concurrency = slo.concurrency or _CONCURRENCY
    saturation = LoadShape(concurrency, warmup_s=plan.warmup_s, duration_s=plan.seconds)
    longer = replace(saturation, warmup_s=0.5, duration_s=max(1.0, plan.seconds))
    capacity = findings.measure(bench, "A", longer, f"{name} capacity of the baseline")
    if not capacity.throughput:
        raise LoadError(f"{name}: {model.pairing.names[0]} answers no request under load", why_failed(capacity))
    alone = replace(saturation, concurrency=1)
    latency_ms = findings.measure(bench, "A", alone, f"{name} one request in flight").service.mean_ms
    p50_s = _SPARE * NEEDED["p50"] * (latency_ms / 1e3 if latency_ms else math.inf)
    alone = replace(alone, duration_s=max(plan.seconds, min(p50_s, _LONGEST_S)))
    wanted = {metric.regime for metric in model.metrics}
    wanted |= {FIXED} if slo.p50_ms or slo.p99_ms else set()
    wanted |= {SATURATION} if slo.throughput_min else set()
    found = {SATURATION: saturation, SINGLE: alone, FIXED: _fixed(capacity, model, plan)}
    return {regime: shape for regime, shape in found.items() if regime in wanted}


def _fixed(capacity: Measurement, model: _Progress, plan: Plan) -> LoadShape:
    slo = model.pairing.slo
    rate = slo.rate or _SHARE_OF_CAPACITY * capacity.throughput
    if capacity.client.ceiling and not slo.rate:
        rate = min(rate, _SHARE_OF_CEILING * capacity.client.ceiling)
    percentile = "p99" if FIXED_P99 in model.metrics or slo.p99_ms else "p50"
    needed_s = _SPARE * NEEDED[percentile] / rate
    return LoadShape(rate=rate, warmup_s=plan.warmup_s, duration_s=max(plan.seconds, needed_s))


@contextlib.contextmanager
def _benches(setting: Setting, pairing: Pairing) -> Iterator[dict[SideName, Lab]]:
    """The lab of each side: one server with both versions, or one for each repository."""
    old, new = workloads_of(setting, pairing)
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
