"""Measurements made up from a few numbers, for what is decided about them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from modelwright.loadtest.document import (
    BatchSize,
    ClientHealth,
    Failure,
    Latency,
    Measurement,
    OfferedLoad,
    Requests,
    ServerStatistics,
    Stability,
    Target,
    Validity,
)
from modelwright.loadtest.gate.rounds import FIXED, SATURATION, SINGLE, Side, SideName

REGIMES = (SATURATION, SINGLE, FIXED)


@dataclass(frozen=True)
class Facts:
    """One side in one regime. Milliseconds; `outside` is network and client."""

    throughput: float = 1000.0
    cpu: float | None = 1.0
    p50: float = 4.0
    p99: float | None = 9.0
    queue: float = 1.0
    compute: float = 2.0
    outside: float = 1.0
    execution: float = 1.5
    batches: Mapping[int, int] = field(default_factory=lambda: {4: 1000, 8: 1000})
    requests: int = 10_000
    failures: Mapping[str, int] = field(default_factory=dict)
    wrong: int = 0
    invalid: str = ""
    complete: bool = True
    statistics: bool = True

    @property
    def total(self) -> float:
        return self.queue + self.compute + self.outside


def measurement(facts: Facts, mode: Literal["closed", "open"] = "open", label: str = "x") -> Measurement:
    failed = sum(facts.failures.values())
    latency = Latency(
        count=facts.requests - failed,
        mean_ms=facts.total,
        min_ms=0.5,
        max_ms=50.0,
        percentiles_ms={"p50": facts.p50, "p90": None, "p95": None, "p99": facts.p99, "p99.9": None},
    )
    return Measurement(
        label=label,
        target=Target(url="http://localhost:8000", protocol="http", model="m", version="1"),
        load=OfferedLoad(
            mode=mode,
            concurrency=32 if mode == "closed" else None,
            rate=None if mode == "closed" else 700.0,
            warmup_s=1,
            duration_s=10,
        ),
        started="2026-01-01T00:00:00+00:00",
        measured_s=10.0,
        complete=facts.complete,
        requests=Requests(
            succeeded=facts.requests - failed,
            failed=failed,
            checked=10,
            wrong=facts.wrong,
            not_sent=facts.failures.get("not sent", 0),
        ),
        throughput=facts.throughput,
        inferences=facts.throughput,
        service=latency,
        response=latency,
        curve=[],
        windows=[],
        stability=Stability(stable=True, tolerance=0.1, reason=""),
        failures=[Failure(kind=kind, message="no", count=count, first_s=1.0) for kind, count in facts.failures.items()],
        server=server(facts) if facts.statistics else None,
        client=ClientHealth(
            processes=1,
            cpu_cores=[0.3],
            memory_bytes=1,
            send_lag_p99_ms=0.1,
            loop_lag_p99_ms=0.1,
            cpu_us_per_request=100.0,
            ceiling=None,
            ceiling_source=None,
            network_and_client_ms=facts.outside,
        ),
        validity=Validity(
            verdict="INVALID" if facts.invalid else "VALID", reasons=[facts.invalid] * bool(facts.invalid)
        ),
    )


def server(facts: Facts) -> ServerStatistics:
    executions = sum(facts.batches.values())
    return ServerStatistics(
        requests=facts.requests,
        executions=executions,
        mean_ms=facts.queue + facts.compute,
        queue_ms=facts.queue,
        compute_input_ms=0.1 * facts.compute,
        compute_infer_ms=0.8 * facts.compute,
        compute_output_ms=0.1 * facts.compute,
        batches=[
            BatchSize(size=size, executions=count, compute_ms=facts.execution * (1 + size / 8))
            for size, count in facts.batches.items()
        ],
        mean_batch=sum(size * count for size, count in facts.batches.items()) / executions if executions else None,
        cache_hits=0,
        cpu_cores=1.0,
        memory_bytes=1,
        cpu_ms_per_request=facts.cpu,
    )


Change = Callable[[Facts], Facts]


def same(facts: Facts) -> Facts:
    return facts


def rounds(
    changes: tuple[Change, Change] = (same, same),
    *,
    count: int = 10,
    seed: int = 1,
    noise: float = 0.01,
    base: Facts = Facts(),
    calibration: int = 8,
    regimes: Sequence[str] = REGIMES,
    by_round: Callable[[int, SideName, Facts], Facts] | None = None,
) -> list[Side]:
    """`calibration` rounds of the baseline twice, and `count` rounds of baseline and candidate.

    The candidate is the baseline with `changes`, at saturation and otherwise. `noise`: of one side, the standard
    deviation of its logarithm. p99 has three times as much, compute and CPU time half.
    """
    generator = np.random.default_rng(seed)
    sides = []
    for number in range(1, calibration + count + 1):
        for order, name in enumerate(generator.permutation(["A", "A2" if number <= calibration else "B"]).tolist()):
            measured: dict[str, Measurement] = {}
            for regime in regimes:
                change = changes[regime != SATURATION]
                facts = _noisy(change(base) if name == "B" else base, generator, noise)
                facts = by_round(number - calibration, name, facts) if by_round else facts
                mode: Literal["closed", "open"] = "open" if regime == FIXED else "closed"
                measured[regime] = measurement(facts, mode, f"round {number} {name} {regime}")
            sides.append(Side(number, order, name, measured))
    return sides


def _noisy(facts: Facts, generator: np.random.Generator, noise: float) -> Facts:
    def times(value: float, factor: float) -> float:
        return value * math.exp(generator.normal(0, noise * factor))

    shared = math.exp(generator.normal(0, noise))  # slow is slow in every part
    changed: dict[str, Any] = {name: getattr(facts, name) * shared for name in ("queue", "compute", "outside")}
    changed |= {"throughput": times(facts.throughput, 1), "p50": times(facts.p50, 1)}
    changed |= {"cpu": facts.cpu and times(facts.cpu, 0.5)}
    changed |= {"p99": facts.p99 and times(facts.p99, 3), "execution": times(facts.execution, 0.5)}
    return replace(facts, **changed)
