"""rounds.py: sides become ratios."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwright.loadtest.gate.rounds import COMPUTE, P50, Pair, Side, as_rounds, compared, same_batches, too_few
from tests.loadtest.synthetic import Facts, measurement, rounds, server


def side(name: str, p50: float) -> Side:
    return Side(1, 1, name, None, measurement(Facts(p50=p50)))  # type: ignore[arg-type]


def test_the_baseline_is_the_geometric_mean_of_both() -> None:
    found = compared([side("A", 2.0), side("A2", 8.0), side("B", 6.0)], P50).pairs
    assert found == [Pair(pytest.approx(4.0), pytest.approx(6.0))]  # type: ignore[arg-type]


def test_one_baseline_is_enough() -> None:
    found = compared([side("A2", 8.0), side("B", 6.0)], P50).pairs
    assert found == [Pair(pytest.approx(8.0), pytest.approx(6.0))]  # type: ignore[arg-type]


def test_a_round_without_a_candidate_is_missing() -> None:
    found = compared([side("A", 2.0), side("A2", 8.0)], P50)
    assert (found.pairs, found.missing) == ([], ["round 1: not measured to its end"])


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
        ({4: 1000, 8: 20}, {8: 1000}, "20 executions had equal batch sizes on both sides, of 1,000"),
        ({4: 9000, 8: 500}, {8: 500, 16: 9000}, "500 executions had equal batch sizes on both sides, of 9,500"),
        ({4: 10}, {4: 10}, "10 executions had equal batch sizes on both sides, of 10"),
        ({}, {}, "0 executions had equal batch sizes on both sides, of 0"),
    ],
)
def test_too_few_equal_batches_are_no_comparison(baseline: dict[int, int], candidate: dict[int, int], why: str) -> None:
    assert same_batches(server(Facts(batches=baseline)), server(Facts(batches=candidate))) == why


def test_compute_of_zero_is_left_out() -> None:
    assert isinstance(same_batches(server(Facts(execution=0.0)), server(Facts())), str)


def test_compute_needs_the_fixed_load() -> None:
    sides = [replace(item, fixed=None) for item in rounds(count=2)]
    assert compared(sides, COMPUTE).missing == ["round 1: not measured to its end", "round 2: not measured to its end"]


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
    kept = as_rounds(list(reversed(rounds(count=3))))
    assert [(item.round, item.order) for item in kept] == [
        (number, order) for number in (1, 2, 3) for order in (0, 1, 2)
    ]
    facts = Facts(batches={4: 300, 8: 100}, failures={"closed": 2})
    only = as_rounds([Side(1, 0, "A", None, measurement(facts))])[0]
    assert (only.throughput, only.p50_ms, only.p99_ms, only.failed) == (None, 4.0, 9.0, 2)
    assert only.compute_ms == pytest.approx(1.5 * (0.75 * 1.5 + 0.25 * 2))
