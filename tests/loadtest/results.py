"""Synthetic results that look like real ones: every kind, and every way in which one can be incomplete."""

from __future__ import annotations

import math
from typing import Any

from modelwright.loadtest.document import (
    Attribution,
    BatchSize,
    ClientHealth,
    CurvePoint,
    Failure,
    Gate,
    Interval,
    Latency,
    MachineFacts,
    Measurement,
    MetricVerdict,
    OfferedLoad,
    Requests,
    Result,
    Round,
    ServerStatistics,
    Share,
    SloResult,
    Stability,
    Target,
    Threshold,
    Validity,
    Verdict,
    Window,
)
from modelwright.loadtest.measure.latency import NEEDED, PERCENTILES

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
LONG = "a_very_long_name_without_any_place_to_break_" * 7  # 308 characters


def latency(p50_ms: float, count: int = 150_000) -> Latency:
    """A distribution with a tail: p99 is twice the median, p99.9 almost three times."""
    factors = {"p50": 1.0, "p90": 1.35, "p95": 1.5, "p99": 2.0, "p99.9": 2.9}
    return Latency(
        count=count,
        mean_ms=p50_ms * 1.08 if count else None,
        min_ms=p50_ms * 0.4 if count else None,
        max_ms=p50_ms * 6.3 if count else None,
        percentiles_ms={name: p50_ms * factors[name] if count >= NEEDED[name] else None for name in PERCENTILES},
    )


def curve(p50_ms: float, late: float = 1.0, decades: int = 4) -> list[CurvePoint]:
    points = []
    for decade in range(decades):
        for digit in range(9, 0, -1):
            quantile = round(1 - digit / 10 ** (decade + 1), 7)
            service = p50_ms * (0.85 + 0.3 * math.log10(1 / (1 - quantile)) ** 1.7)
            points.append(CurvePoint(quantile=quantile, service_ms=service, response_ms=service * late))
    return points


def windows(throughput: float, p50_ms: float, failed: int = 0) -> list[Window]:
    return [
        Window(
            start_s=index * 3.0,
            duration_s=3.0,
            requests=int(throughput * 3) + (failed if index == 4 else 0),
            failed=failed if index == 4 else 0,
            throughput=throughput * (1 + 0.03 * math.sin(index * 2.1)),
            p50_ms=p50_ms * (1 + 0.02 * math.cos(index * 1.7)),
            p99_ms=p50_ms * 2 * (1 + 0.12 * math.sin(index * 1.3 + 1)),
        )
        for index in range(10)
    ]


def server(p50_ms: float, requests: int = 150_000, mean_batch: float = 6.0) -> ServerStatistics:
    sizes = [(1, 0.08), (2, 0.06), (4, 0.14), (6, 0.2), (7, 0.12), (8, 0.4)]
    executions = round(requests / mean_batch)
    return ServerStatistics(
        requests=requests,
        executions=executions,
        mean_ms=p50_ms * 0.9,
        queue_ms=p50_ms * 0.35,
        compute_input_ms=p50_ms * 0.03,
        compute_infer_ms=p50_ms * 0.42,
        compute_output_ms=p50_ms * 0.02,
        batches=[
            BatchSize(size=s, executions=round(executions * w), compute_ms=p50_ms * 0.2 + s * 0.05) for s, w in sizes
        ],
        mean_batch=mean_batch,
        cache_hits=0,
        cpu_cores=1.32,
        memory_bytes=412_000_000,
    )


def client(p50_ms: float, **changed: Any) -> ClientHealth:
    values: dict[str, Any] = {
        "processes": 1,
        "cpu_cores": [0.71],
        "memory_bytes": 148_000_000,
        "send_lag_p99_ms": None,
        "loop_lag_p99_ms": 0.31,
        "cpu_us_per_request": 142.0,
        "ceiling": 7042.0,
        "ceiling_source": "CPU time",
        "network_and_client_ms": p50_ms * 0.18,
    }
    return ClientHealth(**values | changed)


def target(model: str = "digits", version: str = "3", **changed: Any) -> Target:
    values: dict[str, Any] = {
        "url": "127.0.0.1:8001",
        "protocol": "grpc",
        "model": model,
        "version": version,
        "payload": "golden samples, 64 distinct",
        "payload_bytes": 256,
    }
    return Target(**values | changed)


def closed(concurrency: int = 32, batch: int = 1) -> OfferedLoad:
    return OfferedLoad(mode="closed", concurrency=concurrency, batch=batch, warmup_s=5.0, duration_s=30.0)


def opened(rate: float = 1000.0) -> OfferedLoad:
    return OfferedLoad(mode="open", rate=rate, arrivals="poisson", warmup_s=5.0, duration_s=30.0)


def measurement(label: str, load: OfferedLoad, throughput: float, p50_ms: float, **changed: Any) -> Measurement:
    """A healthy one; `changed` fields replace its own."""
    requests = int(throughput * 30)
    late = 1.0 if load.mode == "closed" else 1.15
    values: dict[str, Any] = {
        "label": label,
        "target": target(),
        "load": load,
        "started": "2026-11-21T09:30:00Z",
        "measured_s": 30.0,
        "complete": True,
        "requests": Requests(succeeded=requests, failed=0, checked=requests // 100, wrong=0),
        "throughput": throughput,
        "inferences": throughput * load.batch,
        "service": latency(p50_ms, requests),
        "response": latency(p50_ms * late, requests),
        "curve": curve(p50_ms, late),
        "windows": windows(throughput, p50_ms),
        "stability": Stability(stable=True, tolerance=0.1, reason=""),
        "failures": [],
        "server": server(p50_ms, requests),
        "client": client(p50_ms, send_lag_p99_ms=None if load.mode == "closed" else 0.08),
        "validity": Validity(verdict="VALID", reasons=[]),
    }
    return Measurement(**values | changed)


def result(kind: str, title: str, measurements: list[Measurement], **changed: Any) -> Result:
    values: dict[str, Any] = {
        "kind": kind,
        "title": title,
        "modelwright": "0.4.0",
        "created": "2026-11-21T09:31:00Z",
        "command": [
            "modelwright",
            "load",
            kind,
            "digits",
            "--concurrency",
            "32",
            "--output",
            "load reports/digits.json",
        ],
        "machine": MachineFacts(
            cpu="AMD EPYC 9B14",
            cores=2,
            memory_bytes=8_326_000_000,
            system="Linux 6.1, Python 3.11.7",
            client_and_server_share_it=True,
        ),
        "server": {
            "name": "triton",
            "version": "2.51.0",
            "extensions": ["classification", "sequence", "model_repository", "statistics", "trace", "logging"],
        },
        "complete": True,
        "measurements": measurements,
    }
    return Result(**values | changed)


# --- run, sweep, slo --------------------------------------------------------------------------------------------------


def run() -> Result:
    note = "client and server share 2 cores: each takes time from the other"
    validity = Validity(verdict="VALID", reasons=[], notes=[note])
    return result("run", "digits", [measurement("32 in flight", closed(), 5012.4, 5.93, validity=validity)])


def open_run() -> Result:
    """Open loop, some failures, invalid."""
    failures = [
        Failure(kind="timeout", message="no answer within 1 s", count=37, first_s=12.41),
        Failure(kind="HTTP 503", message='{"error":"request exceeds the queue\'s size"}', count=5, first_s=-0.8),
    ]
    reasons = [
        "send lag p99 is 1.9 ms, 16 % of the measured p99 (5 % is allowed): the client sent late",
        "5,000 requests a second were asked for, 71 % of what this client can send (50 % is allowed)",
    ]
    item = measurement(
        "5,000 req/s",
        opened(5000.0),
        4931.2,
        6.2,
        requests=Requests(succeeded=147_936, failed=42, checked=1480, wrong=3),
        failures=failures,
        windows=windows(4931.2, 6.2, failed=42),
        stability=Stability(
            stable=False,
            tolerance=0.1,
            reason="p50 of the last 3 windows: 5.9, 6.4, 8.1 ms, up to 19 % from their mean; 10 % is allowed",
        ),
        validity=Validity(verdict="INVALID", reasons=reasons),
    )
    return result("run", "digits at 5,000 req/s", [item])


def saturating(concurrency: int, batch: int = 1, cost_ms: float = 0.17) -> tuple[float, float]:
    """Throughput in requests a second and p50 in ms of a server that can do 1,000 / cost_ms."""
    most = 1000 / (cost_ms * (1 + 0.35 * (batch - 1)))
    throughput = most * concurrency / (concurrency + 3)
    return throughput, 1000 * concurrency / throughput * 0.95


def sweep(batches: tuple[int, ...] = (1,), protocols: tuple[str, ...] = ("grpc",)) -> Result:
    items = []
    for protocol in protocols:
        for batch in batches:
            for concurrency in (1, 2, 4, 8, 16, 32, 64):
                throughput, p50_ms = saturating(concurrency, batch, 0.17 if protocol == "grpc" else 0.2)
                label = f"{concurrency} in flight"
                label += f", batch {batch}" if len(batches) > 1 else ""
                label += f", {protocol}" if len(protocols) > 1 else ""
                asked = target(protocol=protocol)
                items.append(measurement(label, closed(concurrency, batch), throughput, p50_ms, target=asked))
    return result("sweep", "digits", items)


def slo(*, holds: bool = True) -> Result:
    rates = [1000, 2000, 4000, 5000, 4500, 4250, 4375] if holds else [100, 50, 25]
    items, held = [], []
    for rate in rates:
        p50_ms = 1.4 / max(0.04, 1 - rate / 4900) if holds else 31.0
        items.append(measurement(f"{rate:,} req/s", opened(rate), min(rate, 4780), p50_ms))
        held.append(p50_ms * 1.15 * 2 <= 20)
    best = max((rate for rate, ok in zip(rates, held, strict=True) if ok), default=None)
    found = SloResult(
        percentile="p99",
        objective_ms=20.0,
        rate=best,
        probes=[item.label for item in items],
        held=held,
        limited_by="objective",
        explanation="bisection ended at 3 % of the rate"
        if holds
        else "25 requests a second was the lowest rate to try",
    )
    return result("slo", "digits: p99 ≤ 20 ms", items, slo=found)


def interrupted() -> Result:
    """Ctrl-C in the warm-up: nothing was measured."""
    item = measurement("32 in flight", closed(), 0.0, 0.0, **empty(), complete=False, measured_s=0.0)
    return result("run", "digits", [item], complete=False, notes=["interrupted by Ctrl-C in the warm-up"])


def all_failed() -> Result:
    failures = [Failure(kind="connect", message="127.0.0.1:8001: connection refused", count=4096, first_s=0.0)]
    changed = empty() | {
        "requests": Requests(succeeded=0, failed=4096, checked=0, wrong=0),
        "failures": failures,
        "windows": [
            Window(start_s=i * 3.0, duration_s=3.0, requests=410, failed=410, throughput=0.0, p50_ms=None, p99_ms=None)
            for i in range(10)
        ],
    }
    item = measurement("32 in flight", closed(), 0.0, 0.0, **changed)
    return result("run", "digits", [item])


def empty() -> dict[str, Any]:
    """The fields of a measurement without a successful request, and without anything that may be null."""
    return {
        "requests": Requests(succeeded=0, failed=0, checked=0, wrong=0),
        "service": latency(0.0, 0),
        "response": latency(0.0, 0),
        "curve": [],
        "windows": [],
        "stability": Stability(stable=False, tolerance=0.1, reason="0 windows were measured, 3 are needed"),
        "server": None,
        "client": client(
            0.0,
            send_lag_p99_ms=None,
            loop_lag_p99_ms=None,
            cpu_us_per_request=None,
            ceiling=None,
            ceiling_source=None,
            network_and_client_ms=None,
            cpu_cores=[],
        ),
        "validity": Validity(verdict="INVALID", reasons=["no request succeeded"]),
    }


def few() -> Result:
    """100 requests: a p50 and a p90, nothing above."""
    item = measurement("1 in flight", closed(1), 3.3, 301.0)
    windows_without = [
        Window(start_s=i * 3.0, duration_s=3.0, requests=10, failed=0, throughput=3.3, p50_ms=None, p99_ms=None)
        for i in range(10)
    ]
    return result(
        "run", "sentences", [item.model_copy(update={"windows": windows_without, "curve": curve(301.0, decades=1)})]
    )


def nothing() -> Result:
    """A document without a measurement."""
    return result("sweep", "digits", [], complete=False, server={})


def hostile() -> Result:
    """Every text is one that a server, a model's author or a shell could have made up to do harm."""
    failures = [Failure(kind=HOSTILE, message=f"{HOSTILE} {LONG}\x00\x1b[31m\u202e", count=3, first_s=1.0)]
    asked = target(LONG, HOSTILE, url=f"http://{LONG}/{HOSTILE}", payload=HOSTILE)
    validity = Validity(verdict="INVALID", reasons=[HOSTILE, LONG], notes=[f"={HOSTILE}"])
    unstable = Stability(stable=False, tolerance=0.1, reason=HOSTILE + LONG)
    items = [
        measurement(
            label, closed(), 5012.4, 5.93, target=asked, failures=failures, validity=validity, stability=unstable
        )
        for label in (f"=1+1 {HOSTILE}", LONG)
    ]
    metadata = {HOSTILE: HOSTILE, LONG: [LONG, HOSTILE], "nested": {"</style>": LONG, "number": 1}}
    return result("run", HOSTILE + LONG, items, command=["modelwright", HOSTILE, LONG], server=metadata, notes=[LONG])


# --- ab ---------------------------------------------------------------------------------------------------------------


def metric(
    name: str, regime: str, change: float, width: float, verdict: Verdict, *, base: float, margin: float = 0.05
) -> MetricVerdict:
    """`change` and `width` (half the interval's) are shares: -0.12, 0.02."""
    higher = name == "throughput"
    interval = Interval(
        metric=name,
        regime=regime,
        ratio=1 + change,
        low=1 + change - width,
        high=1 + change + width,
        confidence=0.99,
        baseline=base,
        candidate=base * (1 + change),
        unit="req/s" if higher else "ms",
        rounds=10,
    )
    p_value = {"PASS": 0.94, "FAIL": 0.0004, "INCONCLUSIVE": 0.07}[verdict]
    return MetricVerdict(
        interval=interval,
        margin=margin,
        higher_is_better=higher,
        verdict=verdict,
        p_value=p_value,
        rejected=verdict == "FAIL",
    )


def metrics(slower: float, width: float, verdict: Verdict) -> list[MetricVerdict]:
    """All metrics of both regimes, the candidate `slower` by a share in each."""
    return [
        metric("throughput", "saturation", -slower, width, verdict, base=5012.0),
        metric("p50", "saturation", slower, width, verdict, base=5.93),
        metric("p99", "saturation", slower * 1.2, width * 1.8, verdict, base=9.8, margin=0.1),
        metric("compute", "saturation", slower * 1.1, width * 0.5, verdict, base=2.4),
        metric("p50", "fixed load", slower * 0.8, width, verdict, base=2.1),
        metric("p99", "fixed load", slower, width * 1.2, verdict, base=4.4, margin=0.1),
        metric("compute", "fixed load", slower, width * 0.6, verdict, base=1.9),
    ]


def attribution(cause: str, slower: float) -> Attribution:
    moved = cause == "compute"
    differences = [
        "digits.onnx: 2 more MatMul nodes",
        "config: dynamic_batching.max_queue_delay_microseconds 200 → 2000",
        "tools: onnxruntime 1.26.0 → 1.27.0",
    ]
    return Attribution(
        cause=cause,
        explanation=f"compute takes {slower:.0%} longer on the same batches; queue time follows it"
        if moved
        else "no part moved by more than its margin",
        regime="saturation",
        shares=[
            Share(part="queue", baseline_ms=2.1, candidate_ms=2.1 * (1 + slower)),
            Share(part="compute", baseline_ms=2.6, candidate_ms=2.6 * (1 + slower)),
            Share(part="network and client", baseline_ms=1.1, candidate_ms=1.1),
        ],
        baseline_batch=6.1,
        candidate_batch=6.4,
        baseline_batches={1: 0.1, 4: 0.25, 6: 0.25, 8: 0.4},
        candidate_batches={1: 0.08, 4: 0.2, 6: 0.27, 8: 0.45},
        differences=differences if moved else [],
    )


def gate(model: str, verdict: Verdict, slower: float, width: float) -> Gate:
    reasons = {
        "PASS": [],
        "FAIL": [
            "throughput at saturation is 12.0 % lower (10.5 to 13.5 %), 5 % is allowed",
            "p50 at saturation is 12.0 % higher",
        ],
        "INCONCLUSIVE": ["p99 at fixed load: the interval reaches beyond its margin, and not wholly"],
    }[verdict]
    rounds = [
        Round(round=r, order=o, side=side, throughput=5000 - 40 * r, p50_ms=5.9, p99_ms=9.8, compute_ms=2.4, failed=0)
        for r in range(1, 11)
        for o, side in enumerate(("A", "B", "A2"), 1)
    ]  # fmt: skip
    thresholds = [
        Threshold(name="p99_ms", bound=20.0, measured=9.8, verdict="PASS"),
        Threshold(name="throughput_min", bound=4800.0, measured=4410.0 if verdict == "FAIL" else None, verdict=verdict),
    ]
    return Gate(
        model=model,
        baseline="version 3",
        candidate="version 4",
        verdict=verdict,
        reasons=reasons,
        metrics=metrics(slower, width, verdict),
        calibration=metrics(0.004, 0.015, "PASS"),
        thresholds=thresholds,
        attribution=attribution("compute" if verdict == "FAIL" else "nothing moved", slower),
        rounds=rounds,
        seed=7,
    )


def sides(model: str, rounds: int = 10) -> list[Measurement]:
    """What a gate measures: in each round A, A2 and B, at saturation and at fixed load."""
    items = []
    for number in range(1, rounds + 1):
        for side, version in (("A", "3"), ("A2", "3"), ("B", "4")):
            for regime, load in (("saturation", closed()), ("fixed load", opened(3500.0))):
                throughput = 5012.0 if regime == "saturation" else 3500.0
                label = f"{model}: round {number} {side}, {regime}"
                asked = target(model, version)
                items.append(
                    measurement(label, load, throughput, 5.93 if regime == "saturation" else 2.1, target=asked)
                )
    return items


def ab(rounds: int = 10) -> Result:
    gates = [
        gate("digits", "FAIL", 0.12, 0.015),
        gate("sentences", "INCONCLUSIVE", 0.045, 0.04),
        gate("wine", "PASS", 0.003, 0.012),
    ]
    items = [item for one in gates for item in sides(one.model, rounds)]
    return result("ab", "3 models: newest version against the one before", items, gates=gates)


def ab_hostile() -> Result:
    """Names that break out, differences without end, intervals far off the chart, no calibration."""
    one = gate(LONG, "FAIL", 0.12, 0.015)
    wild = [
        metric(LONG, HOSTILE, 8.0, 3.0, "FAIL", base=1.0),
        metric("throughput", "saturation", -0.97, 0.01, "FAIL", base=5012.0),
        metric("p50", "saturation", 0.0, 0.0, "PASS", base=1.0),
    ]
    cause = one.attribution.model_copy(
        update={"cause": HOSTILE, "explanation": LONG, "differences": [HOSTILE, LONG] * 20}
    )
    changed = {"metrics": wild, "calibration": [], "reasons": [HOSTILE, LONG], "attribution": cause, "baseline": LONG}
    items = [item.model_copy(update={"target": target(LONG)}) for item in sides("x", 1)]
    return result("ab", HOSTILE, items, gates=[one.model_copy(update=changed)])


EVERY = {
    "run": run,
    "open run": open_run,
    "sweep": sweep,
    "sweep of batches": lambda: sweep((1, 4, 16, 64), ("grpc", "http")),
    "slo": slo,
    "slo that fails": lambda: slo(holds=False),
    "interrupted": interrupted,
    "all failed": all_failed,
    "few": few,
    "nothing": nothing,
    "hostile": hostile,
    "ab": lambda: ab(2),
    "ab hostile": ab_hostile,
}
