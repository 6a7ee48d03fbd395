"""A result as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.output import milliseconds
from loadtest.result import Measurement, Result

_HEAD = ("load", "req/s", "p50", "p90", "p99", "p99.9", "queue", "compute", "failed", "")


def text(result: Result) -> str:
    parts = [_table([_HEAD, *(_row(measured) for measured in result.measurements)])]
    parts += [f"{note}" for note in result.notes]
    parts += _remarks(result.measurements)
    if result.slo:
        parts.append(result.slo.explanation)
    return "\n".join(parts)


def _row(measured: Measurement) -> tuple[str, ...]:
    percentiles, server = measured.response.percentiles_ms, measured.server
    compute_ms = server.compute_input_ms + server.compute_infer_ms + server.compute_output_ms if server else None
    return (
        measured.label,
        f"{measured.throughput:,.0f}",
        *(milliseconds(percentiles[name]) for name in ("p50", "p90", "p99", "p99.9")),
        milliseconds(server.queue_ms if server else None),
        milliseconds(compute_ms),
        f"{measured.requests.failed:,}",
        measured.validity.verdict,
    )


def _remarks(measurements: Sequence[Measurement]) -> list[str]:
    """What a reader must know of some of them, once for all that share it."""
    found: dict[str, list[str]] = {}
    for measured in measurements:
        unstable = [] if measured.stability.stable else [f"not stable: {measured.stability.reason}"]
        failures = [
            f"{failure.count:,} of kind {failure.kind}, first {failure.first_s:.1f} s in: {failure.message}"
            for failure in measured.failures
        ]
        for remark in (*failures, *measured.validity.reasons, *measured.validity.notes, *unstable):
            found.setdefault(remark, []).append(measured.label)
    return [f"  {', '.join(labels)}: {remark}" for remark, labels in found.items()]


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
