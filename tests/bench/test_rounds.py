"""Turns, and the statistics over them. Clocks and contenders are made up."""

from __future__ import annotations

import pytest

from modelwright.bench.child import time_calls
from modelwright.bench.children import ContenderError
from modelwright.bench.others import Others, busy_note
from modelwright.bench.rounds import BenchPlan, batch_latency, is_beyond, speedup, take_turns


class Timed:
    """Says who was asked; ends after `most` turns."""

    def __init__(self, name: str, asked: list[str], most: int = 100) -> None:
        self.name, self.asked, self.most = name, asked, most

    def time(self, batch: int, seconds: float) -> tuple[int, ...]:
        if self.asked.count(self.name) >= self.most:
            raise ContenderError("its process died")
        self.asked.append(self.name)
        return (1000 * batch, 2000 * batch, 3000 * batch)


def quiet(text: str) -> None:
    pass


def test_everyone_has_one_turn_a_round_and_not_always_in_the_same_order() -> None:
    asked: list[str] = []
    turns = take_turns(
        {name: Timed(name, asked) for name in "abc"}, dict.fromkeys("abc", (1,)), BenchPlan(rounds=6), quiet
    )
    rounds = [asked[start : start + 3] for start in range(0, 18, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert {key: len(found) for key, found in turns.calls_ns.items()} == {("a", 1): 6, ("b", 1): 6, ("c", 1): 6}


def test_the_same_seed_gives_the_same_order() -> None:
    orders = []
    for _ in range(2):
        asked: list[str] = []
        take_turns({name: Timed(name, asked) for name in "abcd"}, dict.fromkeys("abcd", (1, 8)), BenchPlan(), quiet)
        orders.append(asked)
    assert orders[0] == orders[1]


def test_one_that_fails_drops_out_and_the_others_go_on() -> None:
    asked: list[str] = []
    contenders = {"a": Timed("a", asked), "b": Timed("b", asked, most=2)}
    turns = take_turns(contenders, {"a": [1, 2], "b": [1, 2]}, BenchPlan(rounds=6), quiet)
    assert turns.failed == {"b": "its process died"}
    assert len(turns.calls_ns["b", 1]) == 2
    assert [len(turns.calls_ns["a", batch]) for batch in (1, 2)] == [6, 6]


def test_a_contender_is_measured_at_its_own_batch_sizes() -> None:
    asked: list[str] = []
    turns = take_turns(
        {"a": Timed("a", asked), "b": Timed("b", asked)}, {"a": [1, 64], "b": [1]}, BenchPlan(rounds=6), quiet
    )
    assert sorted(turns.calls_ns) == [("a", 1), ("a", 64), ("b", 1)]


def test_the_unit_of_the_statistics_is_a_rounds_median() -> None:
    found = batch_latency(8, [(1_000_000, 2_000_000, 9_000_000)] * 6, seed=7)
    assert found.median_ms == pytest.approx(2.0)
    assert (found.calls, found.rounds_ms) == (18, [2.0] * 6)
    assert found.rows_per_s == pytest.approx(4000)
    assert found.low_ms == pytest.approx(2.0)


def test_a_p95_needs_calls_enough() -> None:
    assert batch_latency(1, [(1_000_000,)] * 6, seed=7).p95_ms is None
    assert batch_latency(1, [tuple(range(1_000_000, 1_000_100))] * 6, seed=7).p95_ms is not None


def test_a_speed_up_is_the_ratio_round_by_round() -> None:
    times = [1.0, 4.0, 2.0, 8.0, 1.0, 3.0]  # the machine was slow now and then, for both
    found = speedup(times, [time / 2 for time in times], seed=7)
    assert [found.ratio, found.low, found.high] == pytest.approx([2, 2, 2])
    assert found.rounds == 6
    assert speedup([100.0] * 6, [150.0] * 6, seed=7, higher_is_better=True).ratio == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("other", "rounds", "expected"),
    [(0.5, 6, True), (1.0, 6, False), (0.5, 5, False)],
    ids=["faster", "the same", "too few rounds"],
)
def test_a_difference_is_beyond_the_interval_or_not(other: float, rounds: int, expected: bool) -> None:
    noise = [1.0, 1.1, 0.9, 1.05, 0.95, 1.02][:rounds]
    assert is_beyond(speedup(noise, [other * value for value in reversed(noise)], seed=7)) is expected


# --- one contender's calls --------------------------------------------------------------------------------------------


class Clock:
    """Nanoseconds that only calls take."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def spend(self) -> None:
        self.now += 40_000_000


@pytest.mark.parametrize(
    ("seconds", "fewest", "calls"), [(0.2, 1, 5), (0.01, 1, 1), (0.0, 3, 3)], ids=["time", "one slow call", "at least"]
)
def test_calls_go_on_for_the_time_and_are_at_least_so_many(seconds: float, fewest: int, calls: int) -> None:
    clock = Clock()
    assert time_calls(clock.spend, seconds, fewest, clock) == (40_000_000,) * calls


# --- the machine ------------------------------------------------------------------------------------------------------


def test_what_others_take_is_the_machines_time_less_our_own() -> None:
    clock, busy, own = iter([0.0, 10.0]), iter([100.0, 115.0]), iter([0.0, 9.0])
    with Others(lambda: next(own), lambda: next(busy), lambda: next(clock)) as others:
        pass
    assert others.cores == pytest.approx(0.6, abs=0.01)
    assert busy_note(others.cores) == ["other programs kept 0.6 cores busy meanwhile: measure again on a quiet machine"]


def test_where_the_machine_does_not_say_nothing_is_said() -> None:
    with Others(lambda: 0.0, lambda: None) as others:
        pass
    assert others.cores is None
    assert busy_note(None) == busy_note(0.05) == []
