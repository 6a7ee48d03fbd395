"""A load test's charts with lines: throughput against latency, latency over time, the percentile curve."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright import text as fmt
from modelwright.charts import lines
from modelwright.charts.figure import Figure
from modelwright.charts.lines import Line, LineTitles, Quantiles, Slice, TimeTitles
from modelwright.loadtest.document import Measurement, Window

_NAMED = (0.5, 0.9, 0.99, 0.999)  # quantiles that are marked on the curve


def throughput_latency(
    title: str,
    series: Sequence[Line],
    caption: str,
    *,
    unit: str = "requests a second",
    objective_ms: float | None = None,
) -> Figure | None:
    """Latency over throughput, each point a load. None where no line has a point."""
    titles = LineTitles(title, unit, caption=caption, hollow="the objective did not hold")
    return lines.xy(titles, series, objective_ms, f"objective {fmt.exact(objective_ms or 0)} ms")


def over_time(windows: Sequence[Window]) -> Figure | None:
    """p50 and p99 of each window where they are known, and below on the same time axis throughput and what failed."""
    if not any(window.requests for window in windows):
        return None
    has_latency = any(value is not None for window in windows for value in (window.p50_ms, window.p99_ms))
    titles = TimeTitles(
        chart="Latency and throughput over time" if has_latency else "Throughput over time",
        lines=("p50", "p99"),
        unit="ms",
        nothing="no latencies",
        steps="throughput",
        steps_unit="requests a second",
        marked="requests failed",
        caption="Service time by when requests ended; warm-up left out." if has_latency else "Warm-up left out.",
    )
    return lines.over_time(titles, [_slice(window) for window in windows])


def _slice(window: Window) -> Slice:
    times = f"{window.start_s:.3g} to {window.start_s + window.duration_s:.3g} s"
    failed = f"{window.failed:,} failed" if window.failed else ""
    latencies = f"p50 {fmt.milliseconds(window.p50_ms)}, p99 {fmt.milliseconds(window.p99_ms)}"
    title = f"{times}: {fmt.rate(window.throughput)}, {latencies}" + (f", {failed}" if failed else "")
    values = (window.p50_ms, window.p99_ms)
    return Slice(window.start_s, window.duration_s, values, window.throughput, title, failed)


def percentile_curve(measurement: Measurement) -> Figure | None:
    """Latency by percentile, response time beside service time where the loop is open."""
    points = [point for point in measurement.curve if 0 <= point.quantile < 1]
    curves = [Quantiles("service time", [(point.quantile, point.service_ms) for point in points])]
    caption = "Closed loop: a request is sent when the one before it is done, so both times are the same."
    if measurement.load.mode == "open":
        response = [(point.quantile, point.response_ms) for point in points]
        curves.append(Quantiles("response time, from the intended start", response, dashed=True))
        caption = ""
    titles = LineTitles("Percentile curve", "share of requests that took no longer", caption=caption)
    return lines.quantile_curves(titles, curves, _NAMED)
