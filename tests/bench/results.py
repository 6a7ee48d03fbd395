"""Results of benches as they could have been: no test measures how fast something is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.bench.document import BatchLatency, BenchResult, ContenderResult, ServedThroughput
from modelwright.bench.rounds import batch_latency, speedup
from modelwright.loadtest.document import MachineFacts
from modelwright.loadtest.report.output import machine_facts

ROUNDS = (1.00, 1.02, 0.99, 1.01, 0.98, 1.03, 1.00, 0.99)
MACHINE = MachineFacts(
    cpu="A CPU", cores=2, memory_bytes=8 * 10**9, system="Linux 6, Python 3.11.7", client_and_server_share_it=True
)


def latency(median_ms: float, batch: int = 1, against_ms: float | None = None, shift: int = 0) -> BatchLatency:
    """As measured in eight rounds, with calls enough for a p95; `shift` moves the noise to other rounds."""
    rounds = [[round(median_ms * 1e6 * share)] * 20 for share in (*ROUNDS[shift:], *ROUNDS[:shift])]
    found = batch_latency(batch, rounds, seed=7)
    if against_ms is None:
        return found
    source = [against_ms * share for share in reversed(ROUNDS)]
    return found.model_copy(update={"speedup": speedup(source, found.rounds_ms, seed=7)})


def served(per_s: float) -> ServedThroughput:
    rates = [per_s * share for share in ROUNDS]
    return ServedThroughput(
        requests_per_s=per_s, low=min(rates), high=max(rates), p50_ms=3.0, p99_ms=9.0, failed=0, rounds_per_s=rates
    )


def row(name: str, median_ms: float | None = None, per_s: float | None = None, **fields: Any) -> ContenderResult:
    """A published variant; the source takes 1 ms."""
    given: dict[str, Any] = {
        "form": "variant",
        "model": name,
        "version": 1,
        "version_digest": "d",
        "size_bytes": 100_000,
        "memory_bytes": 20_000_000,
        "metrics": {"accuracy": 0.99},
        "latencies": [latency(median_ms, against_ms=1.0)] if median_ms else [],
        "served": served(per_s) if per_s else None,
    }
    return ContenderResult(name=name, **given | fields)


def source() -> ContenderResult:
    return row("PyTorch", form="eager", model=None, version=None, size_bytes=None, metrics={}, latencies=[latency(1.0)])


def result(contenders: Sequence[ContenderResult], here: bool = False, **fields: Any) -> BenchResult:
    """Of the builder `digits`; `here`: as if it was measured on this machine."""
    given: Mapping[str, Any] = {
        "model": "digits",
        "created": "2026-11-26T03:00:00+00:00",
        "modelwright": "0.1.0",
        "command": ["modelwright", "bench", "digits"],
        "machine": machine_facts(is_local=True) if here else MACHINE,
        "instruction_set": "AVX2",
        "versions": {"onnxruntime": "1.27.0"},
        "threads": 1,
        "batches": sorted({item.batch for contender in contenders for item in contender.latencies}),
        "rounds": len(ROUNDS),
        "seed": 7,
        "inputs": "golden samples: image [1, 8, 8]",
        "others_cores": 0.0,
        "source": contenders[0].name if contenders else "",
        "served_with": "32 requests in flight",
        "contenders": list(contenders),
    }
    return BenchResult(**{**given, **fields})
