"""What the server is asked, and what follows from its answers. Measurements are made up."""

from __future__ import annotations

import pytest

from modelwright.bench.served import ServedPlan, against, throughput
from tests.bench.results import served
from tests.loadtest.results import closed, measurement


@pytest.mark.parametrize(
    ("slowest_ms", "given", "expected"),
    [(0.5, None, (32, 0.3, 1.5)), (100.0, None, (8, 0.8, 2.4)), (100.0, 16, (16, 1.6, 4.8))],
    ids=["fast", "slow", "as asked for"],
)
def test_a_slow_model_gets_fewer_requests_and_more_time(
    slowest_ms: float, given: int | None, expected: tuple[int, float, float]
) -> None:
    shape = ServedPlan(concurrency=given).shape(slowest_ms)
    assert (shape.concurrency, shape.warmup_s, shape.duration_s) == pytest.approx(expected)


def test_throughput_is_the_median_of_the_rounds() -> None:
    rounds = [measurement("round", closed(), rate, 3.0) for rate in (1000.0, 1100.0, 900.0)]
    found = throughput(rounds, seed=7)
    assert not isinstance(found, str)
    assert found.requests_per_s == pytest.approx(1000)
    assert (found.rounds_per_s, found.p50_ms) == ([1000.0, 1100.0, 900.0], 3.0)


def test_a_model_that_answers_nothing_has_a_reason() -> None:
    assert throughput([measurement("round", closed(), 0.0, 3.0)], seed=7) == "no request succeeded"


def test_more_requests_a_second_are_better() -> None:
    found = against(served(1000), served(3000), seed=7).speedup
    assert found is not None
    assert found.ratio == pytest.approx(3)
