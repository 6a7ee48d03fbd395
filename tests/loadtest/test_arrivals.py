"""When requests are sent in an open loop."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from modelwright.loadtest.payloads.arrivals import Arrivals, Timer, schedule


def times(count: int, rate: float, arrivals: Arrivals, seed: int = 7, part: int = 0, parts: int = 1) -> list[int]:
    return list(itertools.islice(schedule(rate, arrivals, seed, part, parts), count))


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_the_same_seed_gives_the_same_times(arrivals: Arrivals) -> None:
    assert times(10_000, 100, arrivals, seed=3) == times(10_000, 100, arrivals, seed=3)


def test_another_seed_and_another_part_give_other_poisson_times() -> None:
    one = times(100, 100, "poisson", seed=3)
    assert one != times(100, 100, "poisson", seed=4)
    assert times(100, 100, "poisson", seed=3, parts=2) != times(100, 100, "poisson", seed=3, part=1, parts=2)


@pytest.mark.parametrize("arrivals", ["poisson", "constant"])
def test_times_do_not_go_back(arrivals: Arrivals) -> None:
    found = times(20_000, 1e6, arrivals)
    assert found == sorted(found)
    assert found[0] >= 0


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff([0, *times(50_000, 200, "poisson")]) / 5e6  # in mean gaps
    assert gaps.mean() == pytest.approx(1, abs=0.02)
    assert gaps.std() == pytest.approx(1, abs=0.02)  # an exponential's is its mean
    for quantile in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(gaps, quantile) == pytest.approx(-np.log(1 - quantile), rel=0.06)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.02  # no memory


@pytest.mark.parametrize("parts", [2, 3])
def test_the_poisson_streams_of_all_parts_are_one_of_the_whole_rate(parts: int) -> None:
    streams = [times(30_000, 300, "poisson", part=part, parts=parts) for part in range(parts)]
    end_ns = min(stream[-1] for stream in streams)
    merged = np.sort([time_ns for stream in streams for time_ns in stream if time_ns < end_ns])
    assert len(merged) / (end_ns * 1e-9) == pytest.approx(300, rel=0.02)
    gaps = np.diff(merged)
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.02)
    seconds = np.bincount((merged // 10**9).astype(int))[:-1]
    assert seconds.var() / seconds.mean() == pytest.approx(1, abs=0.3)  # a count's variance is its mean


@pytest.mark.parametrize("rate", [3, 1000, 7777.7])
def test_constant_ticks_are_spread_over_the_parts_exactly(rate: float) -> None:
    streams = [times(1000, rate, "constant", part=part, parts=3) for part in range(3)]
    merged = sorted(time_ns for stream in streams for time_ns in stream)
    assert merged == [round(number * 1e9 / rate) for number in range(3000)]
    assert all(streams[part][0] == merged[part] for part in range(3))


# --- the timer --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["timerfd", "without timerfd"])
def timer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Timer]:
    if request.param != "timerfd":
        monkeypatch.setattr("modelwright.loadtest.payloads.arrivals.sys.platform", "darwin")
    timer = Timer()
    monkeypatch.undo()
    yield timer
    timer.close()


def test_the_timer_never_returns_early(timer: Timer) -> None:
    for wait_ns in (0, 1, 10_000, 1_000_000, 20_000_000):
        wanted_ns = time.monotonic_ns() + wait_ns
        timer.wait_until(wanted_ns)
        now_ns = time.monotonic_ns()
        assert wanted_ns <= now_ns < wanted_ns + 10**10


def test_a_time_that_is_past_is_not_waited_for(timer: Timer) -> None:
    begin_ns = time.monotonic_ns()
    for past_ns in (0, begin_ns - 1, begin_ns - 10**12, begin_ns):
        assert timer.wait_until(past_ns) is False
    assert timer.wait_until(time.monotonic_ns() + 10_000_000) is True  # and it still works


def test_other_greenlets_run_while_the_timer_waits(timer: Timer) -> None:
    import gevent

    order: list[str] = []
    other = gevent.spawn(order.append, "other")
    timer.wait_until(time.monotonic_ns() + 60_000_000)
    order.append("timer")
    other.join()
    assert order == ["other", "timer"]


def test_a_timer_leaves_no_file_open() -> None:
    import psutil

    Timer().close()
    before = psutil.Process().num_fds()
    for _ in range(20):
        timer = Timer()
        timer.close()
        timer.close()
    assert psutil.Process().num_fds() <= before + threading.active_count()
