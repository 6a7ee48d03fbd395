"""The server's side of a measurement: differences of its statistics, its CPU and its memory.

Statistics count warm-up runs and the requests of all clients. The difference over the measured time leaves the warm-up
out, and other clients' requests if there are none then. It is off by at most the requests in flight at both ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.errors import ServerError
from modelwright.loadtest.document import BatchSize, ServerStatistics
from modelwright.loadtest.generator.recording import Record
from modelwright.loadtest.measure.usage import Usage, cpu_s, usage
from modelwright.triton.client import Client

_MS = 1e-6
_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True)
class Snapshot:
    """The server's statistics of one version at one moment."""

    statistics: Mapping[str, Any]
    usage: Usage | None


def snapshot(client: Client, model: str, version: str, pid: int | None) -> Snapshot | None:
    """None if the server does not answer; if it has ended, the record of requests shows it."""
    try:
        statistics = client.statistics(model, version)["model_stats"]
    except ServerError:
        return None
    of_version = [entry for entry in statistics if not version or entry["version"] == version]
    return Snapshot(of_version[-1], usage(pid) if pid else None) if of_version else None


def difference(before: Snapshot | None, after: Snapshot | None) -> ServerStatistics | None:
    if before is None or after is None:
        return None
    old, new = before.statistics, after.statistics
    requests = _count(new, "success") - _count(old, "success")
    if requests <= 0:
        return None
    parts = {f"{part}_ms": _mean_ms(old, new, part, requests) for part in _PARTS}
    batches = _batches(old, new)
    executions = sum(batch.executions for batch in batches)
    rows = sum(batch.size * batch.executions for batch in batches)
    return ServerStatistics(
        requests=requests,
        executions=executions,
        mean_ms=_mean_ms(old, new, "success", requests),
        **parts,
        batches=batches,
        mean_batch=rows / executions if executions else None,
        cache_hits=_count(new, "cache_hit") - _count(old, "cache_hit"),
        cpu_cores=_cpu_cores(before.usage, after.usage),
        memory_bytes=after.usage.memory_bytes if after.usage else None,
    )


def with_cpu(found: ServerStatistics | None, spent_s: float | None, record: Record) -> ServerStatistics | None:
    """Add the CPU time of a successful request.

    `spent_s` is of the whole phase, from before its first request to after its last answer. So no request is cut by an
    end: each of `record` has all of its CPU time in it, those of the warm-up too.
    """
    succeeded = int((record.rows()["code"] == 0).sum())
    if found is None or spent_s is None or not succeeded:
        return found
    return found.model_copy(update={"cpu_ms_per_request": spent_s * 1e3 / succeeded})


def _count(statistics: Mapping[str, Any], part: str) -> int:
    return int(statistics["inference_stats"][part].get("count", 0))


def _mean_ms(old: Mapping[str, Any], new: Mapping[str, Any], part: str, requests: int) -> float:
    taken_ns = int(new["inference_stats"][part].get("ns", 0)) - int(old["inference_stats"][part].get("ns", 0))
    return taken_ns * _MS / requests


def _batches(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[BatchSize]:
    known = {entry["batch_size"]: entry["compute_infer"] for entry in old.get("batch_stats", ())}
    found = []
    for entry in new.get("batch_stats", ()):
        now, then = entry["compute_infer"], known.get(entry["batch_size"], {})
        executions = int(now["count"]) - int(then.get("count", 0))
        if executions > 0:
            taken_ns = int(now["ns"]) - int(then.get("ns", 0))
            found.append(
                BatchSize(size=int(entry["batch_size"]), executions=executions, compute_ms=taken_ns * _MS / executions)
            )
    return sorted(found, key=lambda batch: batch.size)


def _cpu_cores(before: Usage | None, after: Usage | None) -> float | None:
    spent_s = cpu_s(before, after)
    if before is None or after is None or spent_s is None or after.time_ns <= before.time_ns:
        return None
    return spent_s / ((after.time_ns - before.time_ns) * 1e-9)
