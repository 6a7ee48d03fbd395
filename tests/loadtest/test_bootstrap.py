"""bootstrap.py: an interval that says 95 % holds the truth about 95 times in 100, whatever the noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from modelwright.loadtest.gate.bootstrap import GOOD, estimate, estimate_sides, holm, rounds_needed

Noise = Callable[[np.random.Generator, int], NDArray[Any]]


def with_outliers(generator: np.random.Generator, count: int) -> NDArray[Any]:
    off = generator.choice([-4.0, 0.0, 4.0], count, p=[0.05, 0.9, 0.05])
    return np.asarray(generator.standard_normal(count) + off)


def with_drift(generator: np.random.Generator, count: int) -> NDArray[Any]:
    return generator.standard_normal(count) + np.linspace(-1, 1, count)


NOISE: dict[str, Noise] = {
    "normal": lambda generator, count: generator.standard_normal(count),
    "t3": lambda generator, count: generator.standard_t(3, count),
    "outliers": with_outliers,
    "drift": with_drift,
}


@pytest.mark.parametrize("rounds", [10, 20])
@pytest.mark.parametrize("kind", NOISE)
def test_the_interval_covers_the_truth_as_often_as_it_says(kind: str, rounds: int) -> None:
    generator = np.random.default_rng(rounds)
    experiments, covered = 500, 0
    for seed in range(experiments):
        low, high = estimate(NOISE[kind](generator, rounds).tolist(), seed, resamples=500).interval(0.95)
        covered += low <= 0 <= high
    assert (
        0.92 <= covered / experiments <= 0.99
    )  # three standard errors around 95 % are ± 3 %; drift is on the safe side


@pytest.mark.parametrize("kind", ["quiet", "starved"])
def test_the_interval_of_two_sides_covers_the_truth_and_is_narrow_although_rounds_were_disturbed(kind: str) -> None:
    generator = np.random.default_rng(3)
    covered, widths = 0, []
    for seed in range(300):
        both = generator.standard_normal((16, 2)) * 0.02
        both += (generator.random((16, 2)) < 0.35) * generator.exponential(0.4, (16, 2)) * (kind == "starved")
        low, high = estimate_sides([(one, other) for one, other in both], seed, resamples=500).interval(0.975)
        covered += low <= 0 <= high
        widths.append(high - low)
    assert covered / 300 >= 0.94
    assert np.median(widths) < 0.07


def test_the_better_quarter_of_each_side_is_compared() -> None:
    logs = [(0.0, 0.2), (0.0, 0.2), (0.0, 0.2), (3.0, 0.2), (0.0, 3.0), (0.0, 0.2), (0.0, 0.2), (0.0, 0.2)]
    found = estimate_sides(logs, 1)
    assert found.value == pytest.approx(0.2)
    assert found.rounds == 8
    assert found.interval(0.975) == pytest.approx((0.2, 0.2))
    assert estimate_sides(logs, 1, 1 - GOOD).value == pytest.approx(0.2)


def test_the_median_withstands_a_round_that_is_far_off() -> None:
    rounds = [0.01, 0.02, 0.0, 0.015, 0.005, 0.012, 0.008, 0.011, 0.009]
    calm, disturbed = estimate([*rounds, 0.01], 1), estimate([*rounds, 5.0], 1)
    assert disturbed.value == pytest.approx(calm.value, abs=0.002)
    assert disturbed.interval(0.95)[1] < 0.02


def test_the_same_seed_gives_the_same_interval_and_another_a_slightly_different_one() -> None:
    rounds = [0.01, -0.02, 0.03, 0.0, -0.01, 0.02, 0.015, -0.005]
    assert estimate(rounds, 7).interval(0.95) == estimate(rounds, 7).interval(0.95)
    assert estimate(rounds, 7).interval(0.95) != estimate(rounds, 8).interval(0.95)
    assert estimate(rounds, 7).interval(0.95) == pytest.approx(estimate(rounds, 8).interval(0.95), abs=0.002)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20), st.integers(0, 2**32))
def test_an_interval_holds_its_median_and_widens_with_confidence(rounds: list[float], seed: int) -> None:
    found = estimate(rounds, seed, resamples=400)
    (outer_low, outer_high), (inner_low, inner_high) = found.interval(0.975), found.interval(0.8)
    assert outer_low <= inner_low <= inner_high <= outer_high
    assert found.value == pytest.approx(float(np.median(rounds)))
    assert found.negated.interval(0.8) == pytest.approx((-inner_high, -inner_low))


def test_rounds_that_are_all_alike_leave_no_doubt() -> None:
    assert estimate([0.1] * 10, 1).interval(0.95) == pytest.approx((0.1, 0.1))


def test_one_round_is_an_interval_of_no_width() -> None:
    assert estimate([0.25], 1).interval(0.95) == (0.25, 0.25)


def test_a_p_value_is_small_beyond_the_bound_and_large_short_of_it() -> None:
    rounds = [0.10 + 0.01 * (index % 5 - 2) for index in range(20)]
    assert estimate(rounds, 1).p_value(0.05) == 1 / 10_001
    assert estimate(rounds, 1).p_value(0.15) == 1.0
    assert 0.2 < estimate(rounds, 1).p_value(0.10) < 0.8


def test_a_p_value_claims_no_more_than_the_rounds_are_worth() -> None:
    assert estimate([0.1] * 10, 1).p_value(0.05) == 0.5**10
    assert estimate([0.1] * 3, 1).p_value(0.05) == 0.125


@pytest.mark.parametrize(("confidence", "rounds"), [(0.75, 3), (0.95, 6), (0.975, 7), (0.99, 8)])
def test_an_interval_needs_rounds(confidence: float, rounds: int) -> None:
    assert rounds_needed(confidence) == rounds
    assert 1 - 2.0 ** (1 - rounds) >= confidence > 1 - 2.0 ** (2 - rounds)


@pytest.mark.parametrize(
    ("p_values", "rejected"),
    [
        ([], []),
        ([0.04], [True]),
        ([0.04, 0.04], [False, False]),  # each alone would do
        ([0.01, 0.04], [True, True]),  # 0.05 / 2, then 0.05 / 1
        ([0.03, 0.01, 0.04], [False, True, False]),  # 0.05 / 3 holds, 0.05 / 2 does not: nothing after it counts
        ([0.001, 0.9, 0.0001], [True, False, True]),
    ],
)
def test_holm_steps_down(p_values: list[float], rejected: list[bool]) -> None:
    assert holm(p_values, 0.05) == rejected


def test_a_gate_of_ten_metrics_takes_no_time() -> None:
    began_s = time.process_time()
    for _ in range(10):
        estimate([0.01] * 20, 1).interval(0.975)
    assert time.process_time() - began_s < 5
