"""A result as CSV, one row a measurement, for spreadsheets and data frames. docs/load-result.md lists the columns.

Names have units; numbers are unformatted; null is an empty cell. New columns go to the end.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

from modelwright.fsops import disk_errors
from modelwright.loadtest.document import Latency, Measurement, Result, ServerStatistics
from modelwright.loadtest.measure.latency import PERCENTILES

Cell = str | int | float | bool | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # how a cell begins that a spreadsheet would run (OWASP)


def _latency(name: str, of: Callable[[Measurement], Latency]) -> dict[str, Callable[[Measurement], Cell]]:
    def percentile(key: str) -> Callable[[Measurement], Cell]:
        return lambda item: of(item).percentiles_ms.get(key)

    columns: dict[str, Callable[[Measurement], Cell]] = {
        f"{name}_mean_ms": lambda item: of(item).mean_ms,
        f"{name}_min_ms": lambda item: of(item).min_ms,
        **{f"{name}_{key}_ms": percentile(key) for key in PERCENTILES},
        f"{name}_max_ms": lambda item: of(item).max_ms,
    }
    return columns


def _server(of: Callable[[ServerStatistics], Cell]) -> Callable[[Measurement], Cell]:
    return lambda item: None if item.server is None else of(item.server)


COLUMNS: dict[str, Callable[[Measurement], Cell]] = {
    "label": lambda item: item.label,
    "model": lambda item: item.target.model,
    "version": lambda item: item.target.version,
    "url": lambda item: item.target.url,
    "protocol": lambda item: item.target.protocol,
    "api": lambda item: item.target.api,
    "payload": lambda item: item.target.payload,
    "payload_bytes": lambda item: item.target.payload_bytes,
    "mode": lambda item: item.load.mode,
    "concurrency": lambda item: item.load.concurrency,
    "rate_per_s": lambda item: item.load.rate,
    "arrivals": lambda item: item.load.arrivals,
    "batch_rows": lambda item: item.load.batch,
    "processes": lambda item: item.load.processes,
    "warmup_s": lambda item: item.load.warmup_s,
    "duration_s": lambda item: item.load.duration_s,
    "started": lambda item: item.started,
    "measured_s": lambda item: item.measured_s,
    "complete": lambda item: item.complete,
    "verdict": lambda item: item.validity.verdict,
    "reasons": lambda item: "; ".join(item.validity.reasons),
    "stable": lambda item: item.stability.stable,
    "succeeded": lambda item: item.requests.succeeded,
    "failed": lambda item: item.requests.failed,
    "failures": lambda item: "; ".join(f"{failure.kind}: {failure.count}" for failure in item.failures),
    "checked": lambda item: item.requests.checked,
    "wrong": lambda item: item.requests.wrong,
    "throughput_per_s": lambda item: item.throughput,
    "inferences_per_s": lambda item: item.inferences,
    **_latency("service", lambda item: item.service),
    **_latency("response", lambda item: item.response),
    "server_requests": _server(lambda server: server.requests),
    "server_executions": _server(lambda server: server.executions),
    "server_mean_batch": _server(lambda server: server.mean_batch),
    "server_mean_ms": _server(lambda server: server.mean_ms),
    "server_queue_ms": _server(lambda server: server.queue_ms),
    "server_compute_input_ms": _server(lambda server: server.compute_input_ms),
    "server_compute_infer_ms": _server(lambda server: server.compute_infer_ms),
    "server_compute_output_ms": _server(lambda server: server.compute_output_ms),
    "server_cache_hits": _server(lambda server: server.cache_hits),
    "server_cpu_cores": _server(lambda server: server.cpu_cores),
    "server_memory_bytes": _server(lambda server: server.memory_bytes),
    "client_processes": lambda item: item.client.processes,
    "client_cpu_cores": lambda item: sum(item.client.cpu_cores) if item.client.cpu_cores else None,
    "client_memory_bytes": lambda item: item.client.memory_bytes,
    "client_send_lag_p99_ms": lambda item: item.client.send_lag_p99_ms,
    "client_loop_lag_p99_ms": lambda item: item.client.loop_lag_p99_ms,
    "client_cpu_us_per_request": lambda item: item.client.cpu_us_per_request,
    "client_ceiling_per_s": lambda item: item.client.ceiling,
    "network_and_client_ms": lambda item: item.client.network_and_client_ms,
    "server_cpu_ms_per_request": _server(lambda server: server.cpu_ms_per_request),
    "not_sent": lambda item: item.requests.not_sent,
}


def write_csv(result: Result, path: Path) -> None:
    """Write the measurements in their order, below a line of names. UTF-8, comma, quotes where needed, `\\n`.

    Raises StoreError where the disk refuses.
    """
    with disk_errors(path), path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for item in result.measurements:
            writer.writerow([written(value(item)) for value in COLUMNS.values()])


def written(value: Cell) -> str:
    """One cell. Text that a spreadsheet would run as a formula gets an apostrophe in front; numbers never do."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.replace("\0", "")  # Python's own reader stops at one
        return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else ""  # a numpy float is one too, with another repr
    return str(value)
