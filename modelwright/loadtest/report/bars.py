"""A load test's charts with bars: where a request's time goes, batch sizes."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright import text as fmt
from modelwright.charts.bars import Bar, Histogram, histogram, stacked
from modelwright.charts.figure import Figure
from modelwright.loadtest.document import Attribution, Measurement, ServerStatistics

PARTS = ("queue", "compute input", "compute infer", "compute output", "other in the server", "network and client")
_AXIS, _CAPTION = "mean ms a request", "Mean of all requests, by the server's own statistics."


def parts_ms(server: ServerStatistics, network_and_client_ms: float | None) -> list[float]:
    """Mean milliseconds of a request by PARTS, none below 0. The fifth is what the server's other parts leave over."""
    known = [server.queue_ms, server.compute_input_ms, server.compute_infer_ms, server.compute_output_ms]
    return [max(part, 0.0) for part in (*known, server.mean_ms - sum(known), network_and_client_ms or 0.0)]


def split(measurements: Sequence[Measurement], title: str = "Where a request's time goes") -> Figure | None:
    """Queue, compute and the rest of each measurement with the server's statistics, small loads first."""
    ordered = sorted(
        measurements, key=lambda item: (item.load.batch, item.load.concurrency or 0, item.load.rate or 0.0)
    )
    bars = [
        Bar(item.label, parts_ms(item.server, item.client.network_and_client_ms))
        for item in ordered
        if item.server is not None and item.server.requests
    ]
    return stacked(title, bars, PARTS, _AXIS, _CAPTION)


def shares(attribution: Attribution) -> Figure | None:
    """The parts of a request's time, baseline above candidate."""
    bars = [
        Bar("baseline", [max(share.baseline_ms, 0.0) for share in attribution.shares]),
        Bar("candidate", [max(share.candidate_ms, 0.0) for share in attribution.shares]),
    ]
    if not any(sum(bar.parts) for bar in bars):
        return None
    names = [share.part for share in attribution.shares]
    return stacked(f"Where a request's time goes, {attribution.regime}", bars, names, _AXIS, _CAPTION)


def batch_sizes(server: ServerStatistics) -> Figure | None:
    """The share of the executions at each batch size."""
    total = sum(batch.executions for batch in server.batches)
    if not total:
        return None
    values = {batch.size: batch.executions / total for batch in server.batches if batch.executions}
    notes = {
        batch.size: f"{batch.executions:,} executions, {fmt.milliseconds(batch.compute_ms)} each"
        for batch in server.batches
    }
    mean = f" Mean {fmt.number(server.mean_batch)}." if server.mean_batch is not None else ""
    return _sizes("Batch sizes", {"executions": values}, f"As the server ran them.{mean}", notes)


def batch_mix(attribution: Attribution) -> Figure | None:
    """Baseline and candidate side by side."""
    sides = {"baseline": attribution.baseline_batches, "candidate": attribution.candidate_batches}
    if not any(sides.values()):
        return None
    means = [fmt.number(mean) for mean in (attribution.baseline_batch, attribution.candidate_batch)]
    return _sizes(f"Batch sizes, {attribution.regime}", sides, f"Mean {means[0]}, then {means[1]}.")


def _sizes(title: str, sides: dict[str, dict[int, float]], caption: str, notes: dict[int, str] | None = None) -> Figure:
    return histogram(Histogram(title, sides, "executions", "batch size", "batch", caption, notes))
