"""Distributions of latencies, and what a number of requests can say about them.

A percentile here is a latency that a request really had, by the nearest rank: the smallest one that at least the share
`quantile` of the requests did not exceed. Nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelwright.loadtest.document import CurvePoint, Latency, Stability, Window
from modelwright.text import percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_MS = 1e-6  # milliseconds in a nanosecond
_DECADES = 6  # of the curve: up to 99.9999 %


def needed(quantile: float, confidence: float = 0.99) -> int:
    """The fewest requests from which a percentile is stated.

    LoadGen's early stopping (mlcommons/inference, loadgen/early_stopping.cc) with one request allowed beyond: the
    smallest n for which P(X ≤ 1) ≤ 1 - confidence, X binomial with n trials of chance 1 - quantile. With fewer
    requests, the highest two could both lie below the true percentile by bad luck alone. `quantile` is below 1.
    """
    low, high = 1, 2
    while not _is_enough(high, quantile, confidence):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_enough(middle, quantile, confidence) else (middle, high)
    return high


def _is_enough(count: int, quantile: float, confidence: float) -> bool:
    if count < 2 or quantile <= 0:
        return count >= 2
    none_or_one = quantile ** (count - 1) * (quantile + count * (1 - quantile))
    return none_or_one <= 1 - confidence


NEEDED = {name: needed(quantile) for name, quantile in PERCENTILES.items()}


def latency(ns: NDArray[Any]) -> Latency:
    """The distribution of these latencies, in nanoseconds (int64, in any order); those of failed requests left out."""
    count = len(ns)
    if count == 0:
        return Latency(count=0, mean_ms=None, min_ms=None, max_ms=None, percentiles_ms=dict.fromkeys(PERCENTILES))
    return Latency(
        count=count,
        mean_ms=float(ns.mean()) * _MS,
        min_ms=float(ns.min()) * _MS,
        max_ms=float(ns.max()) * _MS,
        percentiles_ms=dict(zip(PERCENTILES, _supported(ns, PERCENTILES), strict=True)),
    )


def _supported(ns: NDArray[Any], names: Sequence[str] | dict[str, float]) -> list[float | None]:
    """The named percentiles in milliseconds, None where there are too few requests to state one."""
    stated = [name for name in names if len(ns) >= NEEDED[name]]
    values = dict(zip(stated, _quantiles_ms(ns, [PERCENTILES[name] for name in stated]), strict=True))
    return [values.get(name) for name in names]


def _quantiles_ms(ns: NDArray[Any], quantiles: Sequence[float]) -> list[float]:
    import numpy as np

    if not quantiles:
        return []
    ranks = [_rank(quantile, len(ns)) for quantile in quantiles]
    ordered = np.partition(ns, sorted(set(ranks)))  # ten million in a tenth of the time of a sort
    return [float(ordered[rank]) * _MS for rank in ranks]


def _rank(quantile: float, count: int) -> int:
    """The place from 0. Rounding first, since 0.07 * 100 is a little more than 7."""
    return max(0, math.ceil(round(quantile * count, 6)) - 1)


def curve(service_ns: NDArray[Any], response_ns: NDArray[Any]) -> list[CurvePoint]:
    """The percentile curve, for an axis that is logarithmic in 1 - quantile: 0, 10 … 90, 91 … 99, 99.1 … %.

    It ends at the highest quantile that the number of requests supports. Both arrays are of the same requests.
    """
    count = len(service_ns)
    quantiles = [quantile for quantile in _curve_quantiles() if _is_enough(count, quantile, 0.99)]
    service, response = _quantiles_ms(service_ns, quantiles), _quantiles_ms(response_ns, quantiles)
    return [
        CurvePoint(quantile=quantile, service_ms=at_service, response_ms=at_response)
        for quantile, at_service, at_response in zip(quantiles, service, response, strict=True)
    ]


def _curve_quantiles() -> list[float]:
    beyond = [digit / 10 ** (decade + 1) for decade in range(_DECADES) for digit in range(9, 0, -1)]
    return [0.0, *(round(1 - share, _DECADES + 1) for share in beyond)]


def windows(records: NDArray[Any], start_ns: int, end_ns: int, wanted: int = 10) -> list[Window]:
    """`wanted` equal slices of the measured time, by when requests ended; those that ended outside are left out.

    `records` are recording.RECORD in any order. `requests` counts failed ones too, throughput and latencies do not.
    A slice in which no request ended has 0 requests. Without measured time there are no slices.
    """
    import numpy as np

    if end_ns <= start_ns:
        return []
    edges = start_ns + np.arange(wanted + 1) * (end_ns - start_ns) // wanted
    ordered = records[np.argsort(records["end_ns"], kind="stable")]
    cuts = np.searchsorted(ordered["end_ns"], edges, side="left")
    cuts[-1] = np.searchsorted(ordered["end_ns"], end_ns, side="right")  # one that ended exactly then counts
    return [
        _window(ordered[cuts[index] : cuts[index + 1]], int(edges[index] - start_ns), int(edges[index + 1] - start_ns))
        for index in range(wanted)
    ]


def _window(records: NDArray[Any], start_ns: int, end_ns: int) -> Window:
    good = records[records["code"] == 0]
    p50, p99 = _supported(good["end_ns"] - good["start_ns"], ["p50", "p99"])
    duration_s = (end_ns - start_ns) / 1e9
    return Window(
        start_s=start_ns / 1e9,
        duration_s=duration_s,
        requests=len(records),
        failed=len(records) - len(good),
        throughput=len(good) / duration_s if duration_s else 0.0,
        p50_ms=p50,
        p99_ms=p99,
    )


def stability(windows: Sequence[Window], tolerance: float = 0.1, last: int = 3) -> Stability:
    """Whether throughput and p50 of each of the `last` windows lie within `tolerance` (a share) of their mean.

    perf_analyzer's rule, applied after the measurement: the measurement is not extended until it holds.
    """
    reason = _unstable(windows[-last:], tolerance, last)
    return Stability(stable=not reason, tolerance=tolerance, reason=reason)


def _unstable(windows: Sequence[Window], tolerance: float, last: int) -> str:
    if len(windows) < last:
        return f"{len(windows)} windows were measured, {last} are needed"
    p50 = [window.p50_ms for window in windows if window.p50_ms is not None]
    if len(p50) < last:
        fewest = min(window.requests - window.failed for window in windows)
        return f"a window had only {fewest} successful requests; a median needs {NEEDED['p50']}"
    throughput = [window.throughput for window in windows]
    return _uneven("throughput", throughput, "req/s", tolerance) or _uneven("p50", p50, "ms", tolerance)


def _uneven(name: str, values: Sequence[float], unit: str, tolerance: float) -> str:
    mean = sum(values) / len(values)
    worst = max(abs(value - mean) for value in values)
    if worst <= tolerance * mean:
        return ""
    shown = ", ".join(f"{value:,.4g}" for value in values)
    return (
        f"{name} of the last {len(values)} windows: {shown} {unit}, up to {percent(worst / mean)} from their mean; "
        f"{percent(tolerance)} is allowed"
    )
