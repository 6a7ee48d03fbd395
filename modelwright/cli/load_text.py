"""A load test's result as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.loadtest.document import Failure, Gate, Measurement, MetricVerdict, Result
from modelwright.text import change, exact, milliseconds, number, percent, printable, with_unit

_HEAD = ("load", "req/s", "p50", "p90", "p99", "p99.9", "queue", "compute", "failed", "")

_METRIC_HEAD = ("metric", "baseline", "candidate", "change", "interval", "allowed", "")


def text(result: Result) -> str:
    if result.gates:
        return "\n\n".join(_gate(gate) for gate in result.gates)
    remarks = [*result.notes, *_remarks(result.measurements), *([result.slo.explanation] if result.slo else [])]
    table = _table([_HEAD, *(_row(measured) for measured in result.measurements)])
    return "\n".join([table, *map(printable, remarks)])


def line(measured: Measurement) -> str:
    """One measurement in one line, printed as soon as it is made."""
    service, failed = measured.service, measured.requests.failed
    parts = [
        f"{measured.label}:",
        f"{measured.throughput:,.0f} req/s",
        f"p50 {milliseconds(service.percentiles_ms['p50'])}",
        f"p99 {milliseconds(service.percentiles_ms['p99'])}",
    ]
    if failed:
        worst = max(measured.failures, key=lambda failure: failure.count)
        parts.append(f"{failed:,} failed ({worst.kind}: {worst.message})")
    return "  ".join(parts)


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


def _gate(gate: Gate) -> str:
    lines = [f"{gate.model}: {gate.verdict}: {gate.candidate} against {gate.baseline}"]
    lines += [f"  {reason}" for reason in gate.reasons]
    rows = [_METRIC_HEAD, *(_metric(item) for item in gate.metrics)]
    rows += [(f"{item.interval.metric}, A/A", *_metric(item)[1:]) for item in gate.calibration]
    lines += [f"  {line}" for line in _table(rows).splitlines()]
    for bound in gate.thresholds:
        lines.append(f"  {bound.name} {exact(bound.bound)}: {number(bound.measured)}: {bound.verdict}")
    attribution = gate.attribution
    lines.append(f"  cause: {attribution.cause}: {attribution.explanation}")
    lines += [f"  differs: {difference}" for difference in attribution.differences]
    return "\n".join(map(printable, lines))


def _metric(item: MetricVerdict) -> tuple[str, ...]:
    found = item.interval
    return (
        f"{found.metric} at {found.regime}",
        with_unit(found.baseline, found.unit),
        with_unit(found.candidate, found.unit),
        change(found.ratio),
        f"{change(found.low)} … {change(found.high)}",
        f"{'-' if item.higher_is_better else '+'}{percent(item.margin)}",
        item.verdict,
    )


def _remarks(measurements: Sequence[Measurement]) -> list[str]:
    """Notes on measurements, each once with the labels of those that share it."""
    found: dict[str, list[str]] = {}
    for measured in measurements:
        unstable = [] if measured.stability.stable else [f"not stable: {measured.stability.reason}"]
        failures = [
            f"{failure.count:,} failed, {failure.kind}: {failure.message} ({_when(failure)})"
            for failure in measured.failures
        ]
        for remark in (*failures, *measured.validity.reasons, *measured.validity.notes, *unstable):
            found.setdefault(remark, []).append(measured.label)
    return [f"  {', '.join(labels)}: {remark}" for remark, labels in found.items()]


def _when(failure: Failure) -> str:
    """Failures of the warm-up are included, so there may be more than the table counts."""
    return f"the first after {failure.first_s:.1f} s" if failure.first_s >= 0 else "including those of the warm-up"


def _table(rows: Sequence[Sequence[str]]) -> str:
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, len(widths) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
