"""failures.py: any rise in failed requests, and what is a stray."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelwright.loadtest.gate.failures import Failing, failing
from modelwright.loadtest.gate.rounds import FIXED, SATURATION, SideName
from tests.loadtest.synthetic import Facts, rounds

Hits = dict[tuple[int, SideName], dict[str, int]]


def with_failures(hits: Hits, wrong: int = 0) -> Failing:
    """`hits` are by round and side, in each of the two regimes."""

    def hit(number: int, name: SideName, facts: Facts) -> Facts:
        return replace(facts, failures=hits.get((number, name), {}), wrong=wrong if name == "B" else 0, requests=5_000)

    return failing(rounds(by_round=hit, calibration=0, regimes=(SATURATION, FIXED)))


def every_round(name: SideName, kind: str, count: int) -> Hits:
    return {(number, name): {kind: count} for number in range(1, 11)}


FAILS: dict[str, tuple[Hits, str]] = {
    "one wrong answer": ({(3, "B"): {"wrong answer": 1}}, "none of 100,000, candidate 2 of 100,000 (wrong answer: 2)"),
    "a lost connection in two rounds": ({(3, "B"): {"closed": 1}, (5, "B"): {"closed": 1}}, "candidate 4 of 100,000"),
    "many lost connections in one round": ({(3, "B"): {"closed": 6}}, "candidate 12 of 100,000 (closed: 12)"),
    "the baseline's stray is no excuse": ({(3, "A"): {"timeout": 1}, (4, "B"): {"HTTP 500": 1}}, "none of 100,000"),
    "more than the baseline, in every round": (
        every_round("A", "HTTP 503", 1) | every_round("B", "HTTP 503", 9),
        "baseline 20 of 100,000, candidate 180 of 100,000 (HTTP 503: 180); the share rose in 10 of 10 rounds",
    ),
}


@pytest.mark.parametrize("case", FAILS)
def test_fails(case: str) -> None:
    hits, reason = FAILS[case]
    assert reason in with_failures(hits).reason


HOLDS: dict[str, tuple[Hits, list[str]]] = {
    "none": ({}, []),
    "requests that the client did not send": ({(3, "B"): {"not sent": 407}}, []),
    "a stray": (
        {(3, "B"): {"connect": 1}},
        ["2 of 10,000 requests of B got no answer, all in round 3: not counted"],
    ),
    "the baseline alone": (every_round("A", "HTTP 503", 1), ["failed requests: baseline 20 of 100,000, candidate none of 100,000"]),
    "both alike": (
        every_round("A", "HTTP 503", 2) | every_round("B", "HTTP 503", 2),
        [
            "failed requests: baseline 40 of 100,000, candidate 40 of 100,000: no clear rise, "
            "the share was higher in 0 of 0 rounds"
        ],
    ),
    "fewer than the baseline": (
        every_round("A", "HTTP 503", 5) | every_round("B", "HTTP 503", 1),
        [
            "failed requests: baseline 100 of 100,000, candidate 20 of 100,000: no clear rise, "
            "the share was higher in 0 of 10 rounds"
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOLDS)
def test_does_not_fail(case: str) -> None:
    hits, notes = HOLDS[case]
    assert with_failures(hits) == Failing("", notes)


def test_wrong_answers_that_no_failure_lists_count() -> None:
    assert "candidate 20 of 100,000" in with_failures({}, wrong=1).reason
