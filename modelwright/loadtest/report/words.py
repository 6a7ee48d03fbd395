"""Numbers and sentences for people: three digits that mean something, units, and what is missing by name."""

from __future__ import annotations

import math

from modelwright.loadtest.document import Latency, Load, Measurement, Target
from modelwright.loadtest.measure.latency import NEEDED

NONE = "n/a"
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


def number(value: float | None) -> str:
    """Three significant digits, thousands with commas: `0.123`, `12.3`, `1,234`."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.0f}" if decimals <= 0 else f"{value:.{min(decimals, 6)}f}"


def given(value: float) -> str:
    """A number that somebody wrote down, as they wrote it: 20, not 20.0."""
    return f"{value:,.6g}"


def ms(value: float | None) -> str:
    return number(value) if value is None else f"{number(value)} ms"


def rate(value: float | None) -> str:
    return number(value) if value is None else f"{number(value)} req/s"


def seconds(value: float) -> str:
    return f"{number(value)} s"


def percent(share: float, digits: int = 3) -> str:
    """A share 0..1: `5 %`, `12.3 %`."""
    return f"{share * 100:.{digits}g} %"


def change(ratio: float) -> str:
    """A ratio as what a reader asks for: `+3.1 %`; beyond a doubling as a factor."""
    if not math.isfinite(ratio) or ratio >= 2:
        return f"{TIMES} {number(ratio)}"
    points = (ratio - 1) * 100
    text = f"{abs(points):.1f}"
    sign = "" if text == "0.0" else (MINUS if points < 0 else "+")
    return f"{sign}{text} %"


def count(value: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def sentence(text: str) -> str:
    """A message as a sentence: the first letter large, a full stop."""
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


def percentile(latency: Latency, name: str) -> str:
    """`5.93 ms`, or why it cannot be stated: `n/a (needs 662)`."""
    value = latency.percentiles_ms.get(name)
    if value is not None:
        return ms(value)
    return f"{NONE} (needs {NEEDED[name]:,})" if name in NEEDED else NONE


def target(of: Target) -> str:
    """`digits version 3 over gRPC`."""
    protocol = {"http": "HTTP", "grpc": "gRPC"}[of.protocol]
    api = "" if of.api == "raw" else f" ({of.api})"
    return f"{of.model}{f' version {of.version}' if of.version else ''} over {protocol}{api}"


def load(of: Load) -> str:
    """`32 requests in flight`, `1,000 requests a second (poisson arrivals)`; the batch where it is not 1."""
    if of.mode == "closed":
        text = f"{count(of.concurrency or 0, 'request')} in flight"
    else:
        text = f"{number(of.rate)} requests a second"
        text += f" ({of.arrivals} arrivals)" if of.arrivals else ""
    return text + (f", {of.batch:,} rows a request" if of.batch != 1 else "")


def short_load(of: Load, batch: bool = False) -> str:
    """A point's label in a chart: `32`, `1,000/s`; with `batch` also the rows a request."""
    text = f"{of.concurrency:,}" if of.mode == "closed" and of.concurrency is not None else f"{number(of.rate)}/s"
    return f"{text} {TIMES}{of.batch}" if batch else text


def failed_share(of: Measurement) -> str:
    total = of.requests.succeeded + of.requests.failed
    if not of.requests.failed:
        return "0"
    return f"{of.requests.failed:,} ({percent(of.requests.failed / total, 2)})"
