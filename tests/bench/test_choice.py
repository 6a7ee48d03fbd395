"""The best of a result, and by how much."""

from __future__ import annotations

import pytest

from modelwright.bench.choice import choose
from modelwright.errors import LoadError
from tests.bench.results import latency, result, row, source


def test_the_fastest_in_the_server_wins_for_throughput() -> None:
    chosen = choose(result([source(), row("digits", 0.5, 1000), row("digits_int8", 0.6, 2000)]), "throughput")
    assert (chosen.best, chosen.second, chosen.is_decided) == ("digits_int8", "digits", True)
    assert chosen.ratio is not None
    assert chosen.ratio.ratio == pytest.approx(2, rel=0.05)
    assert "2,000 req/s" in chosen.reason
    assert "digits: 1,000 req/s (in the server, 32 requests in flight)" in chosen.reason


def test_without_a_server_rows_a_second_of_the_largest_batch_all_have_count() -> None:
    one = row("digits", latencies=[latency(1.0, 1), latency(8.0, 16)])
    other = row("digits_int8", latencies=[latency(2.0, 1), latency(4.0, 16), latency(30.0, 64)])
    chosen = choose(result([one, other]), "throughput")
    assert (chosen.best, chosen.value) == ("digits_int8", "4,000 rows/s")
    assert chosen.measure == "rows a second in calls with 16 rows"


def test_the_shortest_call_wins_for_latency() -> None:
    chosen = choose(result([source(), row("digits", 0.5, 3000), row("digits_int8", 0.6, 2000)]), "latency")
    assert (chosen.best, chosen.value, chosen.second_value) == ("digits", "0.500 ms", "0.600 ms")


def test_the_smallest_wins_for_size_and_a_size_has_no_interval() -> None:
    chosen = choose(result([row("digits", 0.5), row("digits_int8", 0.6, size_bytes=40_000)]), "size")
    assert (chosen.best, chosen.value, chosen.ratio, chosen.is_decided) == ("digits_int8", "40.0 kB", None, True)


def test_a_difference_within_the_noise_is_said() -> None:
    other = row("digits_int8", latencies=[latency(0.501, shift=3)])
    chosen = choose(result([row("digits", 0.5), other]), "latency")
    assert not chosen.is_decided
    assert chosen.reason.endswith("the difference is within the noise of the measurement")


def test_frameworks_and_what_is_not_published_cannot_win() -> None:
    missing = row("digits_trt", version=None, reason="not built: modelwright build digits_trt", size_bytes=None)
    chosen = choose(result([source(), row("digits", 2.0), missing]), "latency")
    assert chosen.best == "digits"
    assert chosen.reason.startswith("digits is the only one that was measured: 2.00 ms")
    assert chosen.left_out == ("digits_trt: not built: modelwright build digits_trt",)


def test_a_batch_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(LoadError, match=r"--batch 4: the bench measured 1"):
        choose(result([row("digits", 0.5)]), "latency", 4)


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(LoadError, match="digits: no published model has this measured"):
        choose(result([row("digits")]), "latency")
