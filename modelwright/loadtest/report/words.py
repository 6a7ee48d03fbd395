"""What a load test is about, in words: its target, its load, how much of it failed."""

from __future__ import annotations

from modelwright import text as fmt
from modelwright.charts.intervals import MINUS
from modelwright.loadtest.document import Latency, Measurement, OfferedLoad, Target
from modelwright.loadtest.measure.latency import NEEDED


def change(ratio: float) -> str:
    """As `text.change`, with the sign that stands beside figures in a chart."""
    return fmt.change(ratio).replace("-", MINUS)


def percentile(latency: Latency, name: str) -> str:
    """`5.93 ms`, or why it cannot be stated: `n/a (needs 662)`."""
    value = latency.percentiles_ms.get(name)
    if value is not None:
        return fmt.milliseconds(value)
    return f"{fmt.NOT_KNOWN} (needs {NEEDED[name]:,})" if name in NEEDED else fmt.NOT_KNOWN


def target(of: Target) -> str:
    """`digits version 3 over gRPC`."""
    protocol = {"http": "HTTP", "grpc": "gRPC"}[of.protocol]
    api = "" if of.api == "raw" else f" ({of.api})"
    return f"{of.model}{f' version {of.version}' if of.version else ''} over {protocol}{api}"


def load(of: OfferedLoad) -> str:
    """`32 requests in flight`, `1,000 requests a second (poisson arrivals)`; the batch where it is not 1."""
    if of.mode == "closed":
        shown = f"{fmt.counted(of.concurrency or 0, 'request')} in flight"
    else:
        shown = f"{fmt.number(of.rate)} requests a second"
        shown += f" ({of.arrivals} arrivals)" if of.arrivals else ""
    return shown + (f", {of.batch:,} rows a request" if of.batch != 1 else "")


def short_load(of: OfferedLoad, batch: bool = False) -> str:
    """A point's label in a chart: `32`, `1,000/s`; with `batch` also the rows a request."""
    shown = f"{of.concurrency:,}" if of.mode == "closed" and of.concurrency is not None else f"{fmt.number(of.rate)}/s"
    return f"{shown} {fmt.TIMES}{of.batch}" if batch else shown


def failed_share(of: Measurement) -> str:
    total = of.requests.succeeded + of.requests.failed
    if not of.requests.failed:
        return "0"
    return f"{of.requests.failed:,} ({fmt.percent(of.requests.failed / total, 2)})"
