"""Feeds Locust's own statistics from records, in batches: for its web interface, its tables and its CSV.

Locust rounds a latency to two digits and to whole milliseconds; the exact figures are in our result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from locust.stats import RequestStats, StatsEntry, StatsError, bucket_response_time

from modelwright.loadtest.generator.recording import RECORD

if TYPE_CHECKING:
    from modelwright.loadtest.generator.context import UserContext


def feed(stats: RequestStats, context: UserContext, data: bytes, offset_ns: int) -> None:
    """Add rows; `offset_ns` brings their clock to the time of day."""
    rows = np.frombuffer(data, dtype=RECORD)
    if not len(rows):
        return
    name, method = context.workload.model, context.address.protocol.upper()
    batch = _batch(stats, name, method, rows, offset_ns)
    stats.get(name, method).extend(batch)
    stats.total.extend(batch)
    for number, failure in enumerate(context.recorder.failures, 1):
        count = int((rows["code"] == number).sum())
        if count:
            key = StatsError.create_key(method, name, failure.kind)
            stats.errors.setdefault(key, StatsError(method, name, f"{failure.kind}: {failure.message}"))
            stats.errors[key].occurrences += count


def _batch(stats: RequestStats, name: str, method: str, rows: Any, offset_ns: int) -> StatsEntry:
    times_ms = (rows["end_ns"] - rows["intended_ns"]) * 1e-6
    ends_s = (rows["end_ns"] + offset_ns) // 1_000_000_000
    entry = StatsEntry(stats, name, method)
    entry.num_requests = len(rows)
    entry.num_failures = int((rows["code"] != 0).sum())
    entry.total_response_time = float(times_ms.sum())
    entry.min_response_time, entry.max_response_time = float(times_ms.min()), float(times_ms.max())
    entry.last_request_timestamp = float(rows["end_ns"].max() + offset_ns) * 1e-9
    for value, count in zip(*np.unique(np.rint(times_ms), return_counts=True), strict=True):
        entry.response_times[bucket_response_time(float(value))] += int(count)
    _count(entry.num_reqs_per_sec, ends_s)
    _count(entry.num_fail_per_sec, ends_s[rows["code"] != 0])
    return entry


def _count(per_second: dict[int, int], seconds: Any) -> None:
    for second, count in zip(*np.unique(seconds, return_counts=True), strict=True):
        per_second[int(second)] += int(count)
