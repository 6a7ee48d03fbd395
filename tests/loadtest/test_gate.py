"""gate.py: what fails, what passes, and what is left open, on rounds made up with a known change and noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from modelwright.loadtest.document import Gate, Verdict
from modelwright.loadtest.gate.rounds import Side, SideName
from modelwright.loadtest.gate.verdict import (
    EXIT_CODES,
    LOOK_CONFIDENCE,
    Case,
    judge,
    overall,
    settled,
    wants_extension,
)
from modelwright.project.spec import Slo, SloMargins
from tests.loadtest.synthetic import Change, Facts, rounds, same


def gate(sides: list[Side], slo: Slo | None = None, confidence: float = LOOK_CONFIDENCE) -> Gate:
    case = Case("m", "version 1", "version 2", sides, slo or Slo(), ["config: x 1 → 2"])
    return judge([case], seed=1, confidence=confidence)[0]


def factors(throughput: float = 1, p50: float = 1, p99: float = 1, execution: float = 1) -> tuple[Change, Change]:
    def saturation(facts: Facts) -> Facts:
        return replace(facts, throughput=facts.throughput * throughput)

    def fixed(facts: Facts) -> Facts:
        p99_ms = facts.p99 and facts.p99 * p99
        return replace(facts, p50=facts.p50 * p50, p99=p99_ms, execution=facts.execution * execution)

    return saturation, fixed


def verdicts(found: Gate) -> dict[str, str]:
    return {item.interval.metric: item.verdict for item in found.metrics}


# --- one metric -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [("throughput", 0.85, 1.15), ("p50", 1.15, 0.85), ("p99", 1.3, 0.7), ("compute", 1.15, 0.85)],
)
def test_a_metric_alone_fails_the_gate_and_its_improvement_passes(metric: str, worse: float, better: float) -> None:
    field = "execution" if metric == "compute" else metric
    slower, faster = gate(rounds(factors(**{field: worse}))), gate(rounds(factors(**{field: better})))
    assert (slower.verdict, faster.verdict) == ("FAIL", "PASS")
    assert verdicts(slower) == {**dict.fromkeys(("throughput", "p50", "p99", "compute"), "PASS"), metric: "FAIL"}
    assert faster.reasons == []


def test_no_change_passes_with_everything_recorded() -> None:
    found = gate(rounds())
    assert (found.verdict, found.reasons, found.attribution.cause) == ("PASS", [], "nothing moved")
    assert [item.interval.metric for item in found.calibration] == ["throughput", "p50", "p99", "compute"]
    assert {item.verdict for item in found.calibration} == {"PASS"}
    assert len(found.rounds) == 30
    throughput = found.metrics[0].interval
    assert throughput.low < throughput.ratio < throughput.high
    assert (throughput.rounds, throughput.confidence, throughput.unit) == (10, 0.975, "req/s")
    assert throughput.baseline == pytest.approx(1000, rel=0.02)


def test_the_reason_of_a_failure_has_the_numbers() -> None:
    found = gate(rounds(factors(throughput=0.8), noise=0))
    expected = "throughput at saturation: -20.0 % (97.5 % interval -20.0 % … -20.0 %; medians 1,000 → 800 req/s), -5 % is allowed"
    assert found.reasons == [expected]
    assert found.attribution.regime == "saturation"
    assert found.attribution.differences == ["config: x 1 → 2"]


@pytest.mark.parametrize(("factor", "verdict"), [(1.04, "PASS"), (1.05, "INCONCLUSIVE"), (1.06, "FAIL")])
def test_the_margin_is_where_the_verdict_turns(factor: float, verdict: str) -> None:
    found = gate(rounds(factors(p50=factor), noise=0.003, seed=3))
    assert (found.verdict, verdicts(found)["p50"]) == (verdict, verdict)


def test_a_margin_of_model_yaml_replaces_the_default() -> None:
    sides = rounds(factors(p50=1.15))
    assert gate(sides, Slo(margins=SloMargins(p50=0.3))).verdict == "PASS"


def test_an_interval_that_holds_the_margin_says_so() -> None:
    found = gate(rounds(factors(p50=1.05), noise=0.01, seed=3))
    assert found.reasons[0].startswith("p50 at fixed load: +")
    assert found.reasons[0].endswith("the interval contains the margin, +5 %")


# --- noise ------------------------------------------------------------------------------------------------------------


def test_a_noisy_machine_is_not_gated_on() -> None:
    found = gate(rounds(noise=0.08))
    assert found.verdict == "INCONCLUSIVE"
    assert "this machine is too noisy to gate it: the baseline against itself" in found.reasons[0]


@pytest.mark.parametrize(("throughput", "verdict"), [(0.85, "INCONCLUSIVE"), (0.3, "FAIL"), (3.0, "PASS")])
def test_on_a_noisy_machine_only_a_change_beyond_its_noise_decides(throughput: float, verdict: str) -> None:
    assert verdicts(gate(rounds(factors(throughput=throughput), noise=0.08)))["throughput"] == verdict


def test_a_machine_that_favours_one_side_is_detected() -> None:
    def biased(_number: int, name: SideName, facts: Facts) -> Facts:
        return replace(facts, p50=facts.p50 * (1.0 if name == "A" else 1.1))

    found = gate(rounds(by_round=biased))
    assert verdicts(found)["p50"] == "INCONCLUSIVE"


def test_without_a_calibration_nothing_is_gated() -> None:
    found = gate([side for side in rounds(factors(p50=2)) if side.side != "A2"])
    assert found.verdict == "INCONCLUSIVE"
    assert "too few rounds compare the baseline with itself" in found.reasons[0]


def test_one_round_that_is_far_off_changes_nothing() -> None:
    def hiccup(number: int, name: SideName, facts: Facts) -> Facts:
        return (
            replace(facts, throughput=facts.throughput / 4, p50=facts.p50 * 4) if (number, name) == (3, "B") else facts
        )

    assert gate(rounds(by_round=hiccup)).verdict == "PASS"


# --- Holm -------------------------------------------------------------------------------------------------------------


def test_one_model_alone_fails_where_it_would_not_among_fifty() -> None:
    borderline = Case("m", "1", "2", rounds(factors(throughput=0.92), noise=0.01))
    quiet = [Case(f"quiet{number}", "1", "2", rounds(noise=0.01, seed=number)) for number in range(14)]
    assert judge([borderline], 1)[0].metrics[0].rejected
    among = judge([borderline, *quiet], 1)[0]
    assert (among.verdict, among.metrics[0].rejected) == ("INCONCLUSIVE", False)
    assert "not significant among 60 comparisons (Holm)" in among.reasons[0]


# --- rounds that do not count -----------------------------------------------------------------------------------------


def spoiled(spoil: Callable[[Facts], Facts], side: SideName, count: int) -> list[Side]:
    return rounds(by_round=lambda number, name, facts: spoil(facts) if name == side and number <= count else facts)


SPOILED: dict[str, tuple[Callable[[Facts], Facts], str]] = {
    "too few requests": (
        lambda facts: replace(facts, requests=500, p99=None),
        "p99 at fixed load was not gated: 7 of 10 rounds can be used (round 1: 500 requests, 662 are needed), 8 are needed",
    ),
    "an invalid client": (
        lambda facts: replace(facts, invalid="send lag p99 is 2 ms"),
        "p50 at fixed load was not gated: 7 of 10 rounds can be used "
        "(round 1: the measurement is not valid: send lag p99 is 2 ms), 8 are needed",
    ),
    "not complete": (
        lambda facts: replace(facts, complete=False),
        "throughput at saturation was not gated: 7 of 10 rounds can be used (round 1: not measured to its end), 8 are needed",
    ),
    "no success": (
        lambda facts: replace(facts, throughput=0.0),
        "throughput at saturation was not gated: 7 of 10 rounds can be used (round 1: no request succeeded), 8 are needed",
    ),
    "no statistics": (
        lambda facts: replace(facts, statistics=False),
        "compute at fixed load was not gated: 7 of 10 rounds can be used "
        "(round 1: no statistics from the server), 8 are needed",
    ),
    "other batches": (
        lambda facts: replace(facts, batches={32: 500}),
        "compute at fixed load was not gated: 7 of 10 rounds can be used "
        "(round 1: 0 executions had equal batch sizes on both sides, of 500), 8 are needed",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_metric_without_enough_rounds_is_not_gated_and_says_what_is_missing(case: str) -> None:
    spoil, reason = SPOILED[case]
    found = gate(spoiled(spoil, "B", 3))
    assert found.verdict == "INCONCLUSIVE"
    assert reason in found.reasons
    assert wants_extension([found]) == []  # more of the same would not help


@pytest.mark.parametrize("case", SPOILED)
def test_two_rounds_in_ten_may_be_lost(case: str) -> None:
    assert gate(spoiled(SPOILED[case][0], "B", 2)).verdict == "PASS"


def test_compute_does_not_need_a_valid_client() -> None:
    found = gate(spoiled(SPOILED["an invalid client"][0], "B", 10))
    assert verdicts(found) == {"compute": "PASS"}


def test_an_interrupted_gate_is_inconclusive() -> None:
    found = gate(rounds(factors(p50=2), count=4))
    assert found.verdict == "INCONCLUSIVE"
    assert found.reasons[0].endswith("4 of 4 rounds can be used, 7 are needed")


def test_no_rounds_at_all_are_inconclusive() -> None:
    found = gate([])
    assert (found.verdict, found.metrics, found.rounds) == ("INCONCLUSIVE", [], [])


# --- failed requests --------------------------------------------------------------------------------------------------


def test_failed_requests_fail_a_candidate_however_fast_it_is() -> None:
    sides = rounds((same, lambda facts: replace(facts, p50=1.0, failures={"HTTP 500": 3})))
    found = gate(sides)
    assert (found.verdict, found.attribution.cause) == ("FAIL", "errors")
    assert found.reasons == ["failed requests: baseline none of 400,000, candidate 30 of 200,000 (HTTP 500: 30)"]


def test_a_stray_failure_is_noted_on_a_pass() -> None:
    def stray(number: int, name: SideName, facts: Facts) -> Facts:
        return replace(facts, failures={"closed": 1}) if (number, name) == (4, "B") and facts.queue < 2 else facts

    found = gate(rounds((lambda facts: replace(facts, queue=5.0), same), by_round=stray))
    assert found.verdict == "PASS"
    assert found.reasons == ["1 of 20,000 requests of B got no answer, all in round 4: not counted"]


# --- thresholds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slo", "verdict", "reason"),
    [
        (Slo(p50_ms=5, p99_ms=12, throughput_min=900), "PASS", ""),
        (
            Slo(p99_ms=8),
            "FAIL",
            "slo.p99_ms: 9.00 ms at fixed load (97.5 % interval 9.00 … 9.00), at most 8.00 is required",
        ),
        (Slo(throughput_min=1100), "FAIL", "slo.throughput_min: 1,000 req/s at saturation"),
    ],
)
def test_a_bound_holds_the_candidate_whatever_the_baseline_did(slo: Slo, verdict: str, reason: str) -> None:
    found = gate(rounds(noise=0), slo)
    assert found.verdict == verdict
    assert found.reasons[0].startswith(reason) if reason else found.reasons == []
    assert {item.verdict for item in found.thresholds} == {verdict}


def test_a_bound_within_the_noise_is_inconclusive_and_more_rounds_may_tell() -> None:
    found = gate(rounds(noise=0.015), Slo(p50_ms=4.0))
    assert (found.verdict, found.thresholds[0].verdict) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert wants_extension([found]) == ["m"]


def test_a_bound_that_could_not_be_measured_is_inconclusive() -> None:
    found = gate(spoiled(SPOILED["too few requests"][0], "B", 10), Slo(p99_ms=20))
    assert (found.thresholds[0].measured, found.thresholds[0].verdict) == (None, "INCONCLUSIVE")
    assert any(reason.startswith("slo.p99_ms was not checked: 0 of 10 rounds") for reason in found.reasons)


# --- all models, two looks --------------------------------------------------------------------------------------------


def test_the_worst_verdict_is_everyones() -> None:
    passed, failed, unsure = gate(rounds()), gate(rounds(factors(p50=2))), gate(rounds(noise=0.08))
    assert overall([passed, unsure]) == "INCONCLUSIVE"
    assert overall([passed, unsure, failed]) == "FAIL"
    assert overall([passed]) == "PASS"
    assert overall([]) == "INCONCLUSIVE"
    assert EXIT_CODES == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


def test_only_what_is_open_is_extended_and_what_was_decided_stays() -> None:
    def look(name: str, verdict: str) -> Gate:
        sides = {"PASS": rounds(), "FAIL": rounds(factors(p50=2)), "INCONCLUSIVE": rounds(noise=0.08)}[verdict]
        return gate(sides).model_copy(update={"model": name})

    first = [look("a", "PASS"), look("b", "INCONCLUSIVE"), look("c", "FAIL")]
    second = [look("a", "INCONCLUSIVE"), look("b", "FAIL"), look("c", "PASS")]
    assert wants_extension(first) == ["b"]
    assert [item.verdict for item in settled(first, second)] == ["PASS", "FAIL", "FAIL"]


def test_the_same_seed_gives_the_same_gate() -> None:
    sides = rounds(noise=0.03)
    assert gate(sides) == gate(sides)


# --- how often it is right --------------------------------------------------------------------------------------------


def two_looks(changes: tuple[Change, Change], seed: int, noise: float) -> Gate:
    sides = rounds(changes, count=20, noise=noise, seed=seed, by_round=hiccups(seed))
    first = judge([Case("m", "1", "2", [side for side in sides if side.round <= 10])], seed)
    again = judge([Case("m", "1", "2", sides)], seed) if wants_extension(first) else []
    return settled(first, again)[0]


def hiccups(seed: int) -> Callable[[int, SideName, Facts], Facts]:
    """One side in about fifteen is slowed down by a quarter, in one regime."""

    def hiccup(number: int, name: SideName, facts: Facts) -> Facts:
        if (hash((seed, number, len(name), name == "A", facts.throughput)) % 15) != 0:
            return facts
        return replace(facts, throughput=facts.throughput * 0.8, p50=facts.p50 * 1.25, execution=facts.execution * 1.25)

    return hiccup


RIGHT: dict[str, tuple[tuple[Change, Change], Verdict, int]] = {
    "the same version": ((same, same), "PASS", 22),
    "10 % more compute": (factors(throughput=0.94, p50=1.13, p99=1.15, execution=1.1), "FAIL", 23),
    "20 % less throughput": (factors(throughput=0.8), "FAIL", 23),
}


@pytest.mark.parametrize("case", RIGHT)
def test_of_twenty_four_gates_nearly_all_are_right(case: str) -> None:
    changes, verdict, at_least = RIGHT[case]
    found = Counter(two_looks(changes, seed, noise=0.02).verdict for seed in range(24))
    assert found[verdict] >= at_least, found
    wrong = found["PASS" if verdict == "FAIL" else "FAIL"]
    assert wrong <= (1 if verdict == "PASS" else 0), found
