"""latency.py: what is stated from how many requests, and that it is a latency some request had."""

from __future__ import annotations

import time
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from modelwright.loadtest.document import Window
from modelwright.loadtest.generator.recording import RECORD
from modelwright.loadtest.measure.latency import NEEDED, PERCENTILES, curve, latency, needed, stability, windows

MS = 1_000_000


def records(end_ms: list[float], service_ms: float | list[float] = 1.0, code: int | list[int] = 0) -> NDArray[Any]:
    made = np.zeros(len(end_ms), dtype=RECORD)
    made["end_ns"] = np.asarray(end_ms) * MS
    made["start_ns"] = made["intended_ns"] = made["end_ns"] - np.asarray(service_ms) * MS
    made["code"] = code
    return made


def test_the_needed_counts_are_loadgens() -> None:
    assert NEEDED == {"p50": 11, "p90": 64, "p95": 130, "p99": 662, "p99.9": 6_636}


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95])
def test_needed_is_the_smallest_count_by_the_binomial_sum(quantile: float) -> None:
    def chance(count: int) -> float:  # of at most one request beyond the percentile
        return sum(comb(count, k) * (1 - quantile) ** k * quantile ** (count - k) for k in (0, 1))

    count = needed(quantile)
    assert chance(count) <= 0.01 < chance(count - 1)


def test_more_confidence_needs_more_requests() -> None:
    assert needed(0.99, 0.9) < needed(0.99, 0.99) < needed(0.99, 0.999)


@pytest.mark.parametrize("name", PERCENTILES)
def test_a_percentile_is_stated_from_the_needed_count_on(name: str) -> None:
    enough = np.arange(NEEDED[name], dtype=np.int64)
    assert latency(enough).percentiles_ms[name] is not None
    assert latency(enough[1:]).percentiles_ms[name] is None


def test_no_request_has_no_latency() -> None:
    found = latency(np.array([], dtype=np.int64))
    assert (found.count, found.mean_ms, found.min_ms, found.max_ms) == (0, None, None, None)
    assert found.percentiles_ms == dict.fromkeys(PERCENTILES)


def test_one_request_has_a_mean_and_no_percentile() -> None:
    found = latency(np.array([3 * MS]))
    assert (found.count, found.mean_ms, found.min_ms, found.max_ms) == (1, 3.0, 3.0, 3.0)
    assert set(found.percentiles_ms.values()) == {None}


def test_percentiles_are_by_the_nearest_rank() -> None:
    found = latency(np.random.default_rng(1).permutation(np.arange(1, 1001)) * MS)
    assert found.percentiles_ms == {"p50": 500.0, "p90": 900.0, "p95": 950.0, "p99": 990.0, "p99.9": None}


def test_two_modes_give_a_percentile_that_some_request_had() -> None:
    found = latency(np.repeat(np.array([1 * MS, 9 * MS]), 50))
    assert found.percentiles_ms["p50"] == 1.0
    assert found.percentiles_ms["p90"] == 9.0


@given(st.lists(st.integers(0, 10**12), min_size=11, max_size=300))
def test_a_percentile_is_numpys_inverted_cdf(values: list[int]) -> None:
    ns = np.array(values, dtype=np.int64)
    found = latency(ns).percentiles_ms
    for name, value in found.items():
        expected = np.quantile(ns, PERCENTILES[name], method="inverted_cdf") * 1e-6 if len(ns) >= NEEDED[name] else None
        assert value == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_two_million_latencies_are_summed_up_in_seconds() -> None:
    ns = np.random.default_rng(1).integers(1, 10**10, 2_000_000)
    began_s = time.process_time()
    found, points = latency(ns), curve(ns, ns)
    assert time.process_time() - began_s < 5
    assert found.percentiles_ms["p99.9"] == pytest.approx(9_990, rel=1e-3)
    assert points[-1].quantile == 0.999996
    assert len(points) <= 60


@pytest.mark.parametrize(
    ("count", "highest"), [(0, None), (1, None), (2, 0.0), (64, 0.9), (662, 0.99), (661, 0.98), (6_636, 0.999)]
)
def test_the_curve_ends_where_the_requests_no_longer_support_it(count: int, highest: float | None) -> None:
    points = curve(np.arange(count), np.arange(count))
    assert (points[-1].quantile if points else None) == highest


def test_the_curve_rises_and_has_both_times() -> None:
    service = np.random.default_rng(2).exponential(MS, 50_000).astype(np.int64)
    points = curve(service, service + MS)
    assert [point.quantile for point in points] == sorted({point.quantile for point in points})
    assert [point.service_ms for point in points] == sorted(point.service_ms for point in points)
    assert all(point.response_ms == pytest.approx(point.service_ms + 1) for point in points)


def test_windows_count_by_the_time_a_request_ended() -> None:
    found = windows(records([500, 0, 999, 1000, -1, 1001]), 0, 1000 * MS, wanted=2)
    assert [(window.start_s, window.duration_s, window.requests) for window in found] == [(0, 0.5, 1), (0.5, 0.5, 3)]


def test_a_window_leaves_failed_requests_out_of_throughput_and_latency() -> None:
    ends = np.linspace(1, 999, 40).tolist()
    service = [1.0] * 20 + [50.0] * 20
    found = windows(records(ends, service, [0] * 20 + [3] * 20), 0, 1000 * MS, wanted=1)
    assert [(w.requests, w.failed, w.throughput, w.p50_ms, w.p99_ms) for w in found] == [(40, 20, 20.0, 1.0, None)]


def test_windows_without_requests_are_there() -> None:
    found = windows(records([]), 0, 1000 * MS)
    assert [window.requests for window in found] == [0] * 10
    assert {window.p50_ms for window in found} == {None}


def test_no_measured_time_has_no_windows() -> None:
    assert windows(records([1.0]), 5 * MS, 5 * MS) == []


@given(st.lists(st.integers(-50, 1050), max_size=80), st.integers(1, 13))
def test_every_request_that_ended_in_time_is_in_one_window(ends: list[int], wanted: int) -> None:
    found = windows(records([float(end) for end in ends]), 0, 1000 * MS, wanted)
    assert sum(window.requests for window in found) == sum(0 <= end <= 1000 for end in ends)
    assert sum(window.duration_s for window in found) == pytest.approx(1.0)


def window(throughput: float, p50_ms: float | None, requests: int = 100) -> Window:
    return Window(
        start_s=0, duration_s=1, requests=requests, failed=0, throughput=throughput, p50_ms=p50_ms, p99_ms=None
    )


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ([(100, 1.0), (100, 1.0), (100, 1.0)], ""),
        ([(10, 9.0), (95, 1.0), (100, 1.0), (105, 1.05)], ""),  # what came before the last three does not count
        (
            [(80, 1.0), (100, 1.0), (120, 1.0)],
            "throughput of the last 3 windows: 80, 100, 120 req/s, up to 20 % from their mean; 10 % is allowed",
        ),
        (
            [(100, 1.0), (100, 1.0), (100, 2.5)],
            "p50 of the last 3 windows: 1, 1, 2.5 ms, up to 66.7 % from their mean; 10 % is allowed",
        ),
        ([(100, 1.0), (100, 1.0)], "2 windows were measured, 3 are needed"),
        ([], "0 windows were measured, 3 are needed"),
        ([(100, 1.0)] * 2 + [(5, None)], "a window had only 5 successful requests; a median needs 11"),
    ],
)
def test_stability_says_what_was_not_even(measured: list[tuple[float, float | None]], reason: str) -> None:
    found = stability([window(rate, p50, requests=int(rate)) for rate, p50 in measured])
    assert (found.stable, found.reason) == (not reason, reason)
