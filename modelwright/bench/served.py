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
from modelwright.loadtest.document import Measurement
from modelwright.loadtest.gate.bootstrap import estimate
from modelwright.loadtest.measure.lab import Setting, lab, server_for
from modelwright.loadtest.payloads.workload import LoadShape
from modelwright.triton.tensors import Tensors, save_tensors
from modelwright.verification.samples import pack


@dataclass(frozen=True)
class ServedPlan:
    """`seconds`: of one measurement."""

    rounds: int = 6
    seconds: float = 1.5
    warmup_s: float = 0.3
    concurrency: int = 32
    seed: int = 7

    @property
    def described(self) -> str:
        return f"{self.concurrency} requests in flight, one row each, {self.rounds} rounds of {self.seconds:g} s"


def measure_served(
    setting: Setting, versions: Mapping[str, int], samples: Sequence[Tensors], plan: ServedPlan
) -> dict[str, list[Measurement]]:
    """{model: a measurement a round} of these versions. All get the same requests.

    Raises ModelwrightError where the server does not start or does not load one of them.
    """
    shape = LoadShape(plan.concurrency, warmup_s=plan.warmup_s, duration_s=plan.seconds)
    measured: dict[str, list[Measurement]] = {model: [] for model in versions}
    with TemporaryDirectory(prefix="modelwright-bench-") as folder:
        payload = Path(folder) / "samples.npz"
        save_tensors(payload, pack(samples))
        template = replace(setting.workload, payload=str(payload), check_every=0, seed=plan.seed)
        workloads = {model: replace(template, model=model, version=str(version)) for model, version in versions.items()}
        wanted = {model: [version] for model, version in versions.items()}
        with server_for(setting, wanted) as server, lab(setting, server, workloads) as bench:
            for number in range(1, plan.rounds + 1):
                order = list(versions)
                Random(f"{plan.seed} {number}").shuffle(order)  # noqa: S311 (an order, no secret)
                for model in order:
                    label = f"served, round {number} of {plan.rounds}"
                    measured[model].append(bench.measure(model, shape, label, seed=plan.seed + number))
                    if bench.interrupted:
                        raise KeyboardInterrupt
                    if server.gone():
                        return measured
    return measured


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
        requests_per_s=math.exp(found.median),
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
