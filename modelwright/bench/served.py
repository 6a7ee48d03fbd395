"""Contenders in the local server: all of them in one session, in turns, at saturation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from modelwright.bench.document import ServedThroughput
from modelwright.bench.rounds import CONFIDENCE, speedup
from modelwright.errors import ServerError
from modelwright.loadtest.document import Measurement
from modelwright.loadtest.gate.bootstrap import estimate
from modelwright.loadtest.measure.lab import Lab, Setting, lab, server_for
from modelwright.loadtest.payloads.workload import LoadShape
from modelwright.text import seconds as seconds_text
from modelwright.triton.tensors import Tensors, save_tensors
from modelwright.verification.samples import pack

_IN_FLIGHT, _IN_FLIGHT_SLOW = 32, 8
_SLOW_MS = 5.0  # of a request alone
_QUEUES = 3  # full of requests, in one measurement
_ALONE = LoadShape(1, warmup_s=0.2, duration_s=0.5)


@dataclass(frozen=True)
class ServedPlan:
    """`seconds`: of one measurement, at least. Without a `concurrency`: 32 in flight, fewer for slow models."""

    rounds: int = 6
    seconds: float = 1.5
    warmup_s: float = 0.3
    concurrency: int | None = None
    seed: int = 7

    def shape(self, slowest_ms: float) -> LoadShape:
        """For models that take `slowest_ms` at most for a request alone: time for some queues full of requests."""
        concurrency = self.concurrency or (_IN_FLIGHT if slowest_ms < _SLOW_MS else _IN_FLIGHT_SLOW)
        queue_s = concurrency * slowest_ms / 1000
        duration_s = max(self.seconds, _QUEUES * queue_s)
        return LoadShape(concurrency, warmup_s=max(self.warmup_s, queue_s), duration_s=duration_s)

    def described(self, shape: LoadShape) -> str:
        rounds = f"{self.rounds} rounds of {seconds_text(shape.duration_s)}"
        return f"{shape.concurrency} requests in flight, one row each, {rounds}"


@dataclass(frozen=True)
class ServedRounds:
    """{model: a measurement a round}, and how they were made."""

    measured: dict[str, list[Measurement]]
    described: str


def measure_served(
    setting: Setting, versions: Mapping[str, int], samples: Sequence[Tensors], plan: ServedPlan
) -> ServedRounds:
    """Rounds of these versions, at least one. All get the same requests.

    Raises ModelwrightError where the server does not start or does not load one of them.
    """
    measured: dict[str, list[Measurement]] = {model: [] for model in versions}
    with TemporaryDirectory(prefix="modelwright-bench-") as folder:
        payload = Path(folder) / "samples.npz"
        save_tensors(payload, pack(samples))
        template = replace(setting.workload, payload=str(payload), check_every=0, seed=plan.seed)
        workloads = {model: replace(template, model=model, version=str(version)) for model, version in versions.items()}
        wanted = {model: [version] for model, version in versions.items()}
        with server_for(setting, wanted) as server, lab(setting, server, workloads) as bench:
            shape = plan.shape(max(_alone_ms(bench, model) for model in versions))
            for number in range(1, plan.rounds + 1):
                order = list(versions)
                Random(f"{plan.seed} {number}").shuffle(order)  # noqa: S311 (an order, no secret)
                for model in order:
                    label = f"served, round {number} of {plan.rounds}"
                    measured[model].append(bench.measure(model, shape, label, seed=plan.seed + number))
                    if bench.interrupted:
                        raise KeyboardInterrupt
                    if server.gone():
                        raise ServerError(server.gone())
    return ServedRounds(measured, plan.described(shape))


def _alone_ms(bench: Lab, model: str) -> float:
    """How long a request takes at best, while no other is in flight; 0 where none succeeds."""
    measured = bench.measure(model, _ALONE, "served, one request at a time")
    if bench.interrupted:
        raise KeyboardInterrupt
    return measured.service.min_ms or 0.0


def throughput(measured: Sequence[Measurement], seed: int) -> ServedThroughput | str:
    """Of one model, by its rounds; or why it has none."""
    rates = [item.throughput for item in measured if item.complete]
    failed = sum(item.requests.failed for item in measured)
    if not rates or not all(rates):
        reasons = [failure.message for item in measured for failure in item.failures]
        return f"no request succeeded: {reasons[0]}" if reasons else "no request succeeded"
    found = estimate([math.log(rate) for rate in rates], seed)
    low, high = found.interval(CONFIDENCE)
    return ServedThroughput(
        requests_per_s=math.exp(found.value),
        low=math.exp(low),
        high=math.exp(high),
        p50_ms=_median(measured, "p50"),
        p99_ms=_median(measured, "p99"),
        failed=failed,
        rounds_per_s=rates,
        notes=list(dict.fromkeys(reason for item in measured for reason in item.validity.reasons)),
    )


def _median(measured: Sequence[Measurement], percentile: str) -> float | None:
    """Of the rounds' percentiles."""
    values = [item.service.percentiles_ms.get(percentile) for item in measured]
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def against(source: ServedThroughput, other: ServedThroughput, seed: int) -> ServedThroughput:
    """`other` with its speed-up against the plain model."""
    ratio = speedup(source.rounds_per_s, other.rounds_per_s, seed, higher_is_better=True)
    return other.model_copy(update={"speedup": ratio})
