"""rounds.py: sides become ratios."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwright.loadtest.gate.rounds import (
    COMPUTE,
    FIXED,
    FIXED_P50,
    P50,
    SATURATION,
    SINGLE,
    THROUGHPUT,
    Pair,
    Pairs,
    Side,
    as_rounds,
    compared,
    same_batches,
    too_few,
    value_of,
)
from tests.loadtest.synthetic import Facts, measurement, rounds, server


def side(name: str, p50: float) -> Side:
    return Side(1, 1, name, {SINGLE: measurement(Facts(p50=p50), "closed")})  # type: ignore[arg-type]


def test_a_round_compares_the_baseline_with_the_candidate_or_with_itself() -> None:
    assert compared([side("A", 2.0), side("B", 6.0)], P50).pairs == [Pair(2.0, 6.0)]
    assert compared([side("A", 2.0), side("A2", 3.0)], P50, "A2").pairs == [Pair(2.0, 3.0)]
    assert compared([side("A", 2.0), side("A2", 3.0)], P50) == Pairs([], [])


def test_a_round_without_a_baseline_is_missing() -> None:
    assert compared([side("B", 2.0)], P50).missing == ["round 1: not measured to its end"]


def test_a_client_that_is_near_its_limit_spoils_no_throughput_and_one_that_did_not_send_does() -> None:
    near = measurement(Facts(invalid="the client may be the limit"), "closed")
    near = near.model_copy(update={"client": near.client.model_copy(update={"ceiling": 1500.0})})
    assert value_of(near, THROUGHPUT) == 1000.0
    assert value_of(measurement(Facts(invalid="late")), FIXED_P50) == "the measurement is not valid: late"
    unsent = measurement(Facts(failures={"not sent": 814}))
    assert value_of(unsent, FIXED_P50) == "the client did not send 814 requests"


def ratio(baseline: Facts, candidate: Facts) -> float:
    found = same_batches(server(baseline), server(candidate))
    assert isinstance(found, Pair), found
    return found.candidate / found.baseline


def test_compute_is_compared_at_equal_batch_sizes() -> None:
    few = Facts(batches={1: 900, 8: 100})
    many = replace(few, batches={1: 100, 8: 900, 16: 500})
    assert ratio(few, many) == pytest.approx(1.0)
    assert ratio(few, replace(many, execution=few.execution * 1.1)) == pytest.approx(1.1)


def test_a_rare_batch_size_does_not_dominate() -> None:
    usual = server(Facts(batches={1: 1000, 64: 1}))
    odd = [
        batch.model_copy(update={"compute_ms": 50 * batch.compute_ms}) if batch.size == 64 else batch
        for batch in usual.batches
    ]
    found = same_batches(usual, usual.model_copy(update={"batches": odd}))
    assert isinstance(found, Pair)
    assert found.candidate / found.baseline < 1.005


@pytest.mark.parametrize(
    ("baseline", "candidate", "why"),
    [
        ({4: 1000}, {8: 1000}, "0 executions had equal batch sizes on both sides, of 1,000"),
        ({4: 1000, 8: 9}, {8: 1000}, "9 executions had equal batch sizes on both sides, of 1,000"),
        ({4: 9000, 8: 500}, {8: 500, 16: 9000}, "500 executions had equal batch sizes on both sides, of 9,500"),
        ({4: 9}, {4: 9}, "9 executions had equal batch sizes on both sides, of 9"),
        ({}, {}, "0 executions had equal batch sizes on both sides, of 0"),
    ],
)
def test_too_few_equal_batches_are_no_comparison(baseline: dict[int, int], candidate: dict[int, int], why: str) -> None:
    assert same_batches(server(Facts(batches=baseline)), server(Facts(batches=candidate))) == why


def test_compute_of_zero_is_left_out() -> None:
    assert isinstance(same_batches(server(Facts(execution=0.0)), server(Facts())), str)


def test_compute_needs_one_request_in_flight() -> None:
    assert compared(rounds(count=2, calibration=0, regimes=[SATURATION]), COMPUTE).missing == [
        "round 1: not measured to its end",
        "round 2: not measured to its end",
    ]


@pytest.mark.parametrize(
    ("good", "lost", "confidence", "why"),
    [
        (10, 0, 0.975, ""),
        (8, 2, 0.975, ""),
        (7, 3, 0.975, "7 of 10 rounds can be used (round 1: x), 8 are needed"),
        (7, 0, 0.975, ""),
        (6, 0, 0.975, "6 of 6 rounds can be used, 7 are needed"),
        (6, 0, 0.95, ""),
    ],
)
def test_rounds_that_carry_an_interval(good: int, lost: int, confidence: float, why: str) -> None:
    assert too_few(good, ["round 1: x"] * lost, confidence) == why


def test_the_document_keeps_rounds_in_order_of_measurement() -> None:
    kept = as_rounds(list(reversed(rounds(count=2, calibration=1))))
    assert [(item.round, item.order) for item in kept] == [(n, order) for n in (1, 2, 3) for order in (0, 1)]
    facts = Facts(batches={4: 300, 8: 100}, failures={"closed": 2})
    only = as_rounds([Side(1, 0, "A", {FIXED: measurement(facts)})])[0]
    assert (only.throughput, only.p50_ms, only.p99_ms, only.failed) == (None, 4.0, 9.0, 2)
    whole = as_rounds([Side(1, 0, "A", {SATURATION: measurement(facts), SINGLE: measurement(facts)})])[0]
    assert (whole.throughput, whole.cpu_ms, whole.p50_ms, whole.failed) == (1000.0, 1.0, 4.0, 4)
    assert whole.compute_ms == pytest.approx(1.5 * (0.75 * 1.5 + 0.25 * 2))
