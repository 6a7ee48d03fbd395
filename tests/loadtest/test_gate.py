"""gate.py: what fails, what passes, and what is left open, on rounds made up with a known change and noise."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from modelwright.loadtest.document import Gate, Verdict
from modelwright.loadtest.gate.calibration import ROUNDS, Noise, calibration_sides, noise_of, rounds_for, wants_more
from modelwright.loadtest.gate.rounds import COMPUTE, CPU, METRICS, P50, THROUGHPUT, Metric, Side, SideName
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

ByRound = Callable[[int, SideName, Facts], Facts]
DEFAULT = (CPU, THROUGHPUT, P50, COMPUTE)


def gate(
    sides: list[Side],
    slo: Slo | None = None,
    confidence: float = LOOK_CONFIDENCE,
    metrics: Sequence[Metric] = DEFAULT,
) -> Gate:
    case = Case("m", "version 1", "version 2", sides, slo or Slo(), ["config: x 1 → 2"], metrics)
    return judge([case], seed=1, confidence=confidence)[0]


def factors(throughput: float = 1, p50: float = 1, cpu: float = 1, execution: float = 1) -> tuple[Change, Change]:
    def saturation(facts: Facts) -> Facts:
        return replace(facts, throughput=facts.throughput * throughput, cpu=facts.cpu and facts.cpu * cpu)

    def otherwise(facts: Facts) -> Facts:
        return replace(facts, p50=facts.p50 * p50, execution=facts.execution * execution)

    return saturation, otherwise


def verdicts(found: Gate) -> dict[str, str]:
    return {item.interval.metric: item.verdict for item in found.metrics}


# --- one metric -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "worse", "better"),
    [("cpu", 1.15, 0.85), ("throughput", 0.85, 1.15), ("p50", 1.15, 0.85), ("compute", 1.15, 0.85)],
)
def test_a_metric_alone_fails_the_gate_and_its_improvement_passes(metric: str, worse: float, better: float) -> None:
    field = "execution" if metric == "compute" else metric
    slower, faster = gate(rounds(factors(**{field: worse}))), gate(rounds(factors(**{field: better})))
    assert (slower.verdict, faster.verdict) == ("FAIL", "PASS")
    assert verdicts(slower) == {**dict.fromkeys(("cpu", "throughput", "p50", "compute"), "PASS"), metric: "FAIL"}
    assert faster.reasons == []


def test_no_change_passes_with_everything_recorded() -> None:
    found = gate(rounds())
    assert (found.verdict, found.reasons, found.attribution.cause) == ("PASS", [], "nothing moved")
    assert [item.interval.metric for item in found.calibration] == ["cpu", "throughput", "p50", "compute"]
    assert {item.verdict for item in found.calibration} == {"PASS"}
    assert all(item.gated for item in found.metrics)
    assert len(found.rounds) == 36
    throughput = found.metrics[1].interval
    assert throughput.low < throughput.ratio < throughput.high
    assert (throughput.rounds, throughput.confidence, throughput.unit) == (10, 0.975, "req/s")
    assert throughput.baseline == pytest.approx(1000, rel=0.02)


def test_the_reason_of_a_failure_has_the_numbers() -> None:
    found = gate(rounds(factors(throughput=0.8), noise=0))
    expected = (
        "throughput at saturation: -20.0 % (97.5 % interval -20.0 % … -20.0 %; 1,000 → 800 req/s), -5 % is allowed"
    )
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
    assert found.reasons[0].startswith("p50 with one in flight: +")
    assert found.reasons[0].endswith("the interval contains the margin, +5 %")


# --- noise ------------------------------------------------------------------------------------------------------------


def noisy(spread: float, *names: str, seed: int = 1, calibration: bool = True) -> ByRound:
    """Make these figures jump about by `spread`, in the rounds of the calibration too or only in those after it."""
    generator = np.random.default_rng(seed)

    def by_round(number: int, _name: SideName, facts: Facts) -> Facts:
        if number > 0 or calibration:
            changed = {name: getattr(facts, name) * math.exp(generator.normal(0, spread)) for name in names}
            return replace(facts, **changed)
        return facts

    return by_round


def drifting(number: int, _name: SideName, facts: Facts) -> Facts:
    """The whole machine is up to a quarter slower for a round, on both sides alike."""
    return replace(facts, p50=facts.p50 * (1 + 0.25 * (number * 7 % 11) / 11))


def starved() -> ByRound:
    generator = np.random.default_rng(1)
    return lambda _number, _name, facts: replace(facts, p50=facts.p50 * (1.4 if generator.random() < 0.2 else 1.0))


@pytest.mark.parametrize(
    ("noise", "statistic"), [(drifting, "median ratio"), (starved(), "better quarter")], ids=["drift", "starved"]
)
def test_the_calibration_chooses_the_statistic_that_the_noise_moves_less(noise: ByRound, statistic: str) -> None:
    sides = rounds(calibration=16, count=20, by_round=noise)
    assert noise_of(calibration_sides(sides), P50, 0.05, 1, LOOK_CONFIDENCE).statistic == statistic
    assert verdicts(gate(sides))["p50"] == "PASS"
    worse = rounds(factors(p50=1.15), calibration=16, count=20, by_round=noise)
    assert verdicts(gate(worse))["p50"] == "FAIL"


def test_a_metric_that_this_machine_cannot_decide_is_reported_and_the_others_decide() -> None:
    found = gate(rounds(by_round=noisy(0.08, "p50")))
    assert (found.verdict, verdicts(found)["p50"]) == ("PASS", "REPORTED")
    (p50,) = [item for item in found.metrics if item.interval.metric == "p50"]
    assert not p50.gated
    assert p50.why_reported.startswith("the baseline against itself -")
    assert p50.why_reported.endswith("± 5 % is required")
    assert found.reasons == [f"p50 with one in flight is not gated: {p50.why_reported}"]
    failed = gate(rounds(factors(cpu=1.15), by_round=noisy(0.08, "p50")))
    assert (failed.verdict, verdicts(failed)["cpu"], verdicts(failed)["p50"]) == ("FAIL", "FAIL", "REPORTED")


def test_the_calibration_chooses_before_the_comparison() -> None:
    """Noise that begins with the comparison leaves a gated metric undecided. It does not make it a reported one."""
    found = gate(rounds(by_round=noisy(0.15, "throughput", calibration=False)))
    assert (found.verdict, verdicts(found)["throughput"]) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert found.metrics[1].gated


def test_nothing_is_decided_where_no_metric_is_gated() -> None:
    found = gate(rounds(by_round=noisy(0.08, "cpu", "throughput", "p50", "execution")))
    assert found.verdict == "INCONCLUSIVE"
    assert "no metric is gated: this machine is too noisy to decide one" in found.reasons


REPORTED: dict[str, tuple[float, float, str, str]] = {
    "no change": (1.0, 0.08, "REPORTED", "is not gated"),
    "better": (1.3, 0.08, "REPORTED", "is not gated"),
    "a loss that its noise does not hide": (0.8, 0.08, "INCONCLUSIVE", "it points to a worse version"),
    "a loss beyond the margin and the noise": (0.5, 0.08, "FAIL", "beyond -5 % and this machine's noise together"),
    "so much noise that a loss could hide": (1.0, 0.8, "INCONCLUSIVE", "a large loss may hide in the noise"),
}


@pytest.mark.parametrize("case", REPORTED)
def test_a_reported_metric_can_stop_a_version_and_never_passes_one(case: str) -> None:
    throughput, spread, verdict, reason = REPORTED[case]
    found = gate(rounds(factors(throughput=throughput), by_round=noisy(spread, "throughput")))
    assert verdicts(found)["throughput"] == verdict
    assert found.verdict == ("PASS" if verdict == "REPORTED" else verdict)
    assert reason in found.reasons[0]


def test_noise_of_compute_keeps_no_version_from_passing() -> None:
    assert gate(rounds(by_round=noisy(0.5, "execution"))).verdict == "PASS"


def test_a_throughput_that_the_client_limits_is_reported() -> None:
    sides = rounds(factors(cpu=1.2))
    for side in sides:
        measured = side.measurements["saturation"]
        near = measured.client.model_copy(update={"ceiling": 1500.0})
        side.measurements["saturation"] = measured.model_copy(update={"client": near})  # type: ignore[index]
    found = gate(sides)
    assert (found.verdict, verdicts(found)["throughput"]) == ("FAIL", "REPORTED")
    assert found.metrics[1].why_reported == "the client may be the limit: it can send less than twice as much"


def test_a_cpu_time_that_is_not_known_is_no_obstacle() -> None:
    found = gate(rounds(base=Facts(cpu=None)))
    assert (found.verdict, list(verdicts(found))) == ("PASS", ["throughput", "p50", "compute"])
    assert found.reasons[0].startswith("cpu at saturation was not measured: 0 of 8 rounds can be used")


def test_a_machine_that_favours_one_side_is_detected() -> None:
    def biased(_number: int, name: SideName, facts: Facts) -> Facts:
        return replace(facts, p50=facts.p50 * (1.0 if name == "A" else 1.1))

    found = gate(rounds(by_round=biased))
    assert (found.verdict, verdicts(found)["p50"]) == ("INCONCLUSIVE", "INCONCLUSIVE")


def test_without_a_calibration_nothing_is_gated() -> None:
    found = gate([side for side in rounds(factors(p50=2)) if side.side != "A2"])
    assert found.verdict == "INCONCLUSIVE"
    assert "no metric is gated: this machine is too noisy to decide one" in found.reasons


def test_the_comparison_gets_as_many_rounds_as_the_calibration_asks_for() -> None:
    def planned(spread: float) -> int:
        sides = rounds(count=0, calibration=16, by_round=noisy(spread, "cpu"))
        return rounds_for([noise_of(sides, metric, 0.05, 1, LOOK_CONFIDENCE) for metric in DEFAULT])

    assert planned(0.0) == 2 * ROUNDS
    assert 2 * ROUNDS < planned(0.04) < 100
    assert planned(0.5) == 2 * ROUNDS  # not gated, so it asks for nothing


def test_the_calibration_goes_on_while_that_may_bring_a_metric_within_its_margin() -> None:
    def noises(spread: float, *names: str) -> list[Noise]:
        sides = rounds(count=0, by_round=noisy(spread, *names))
        return [noise_of(sides, metric, 0.05, 1, LOOK_CONFIDENCE) for metric in DEFAULT]

    assert not wants_more(noises(0.0, "cpu"), 8)
    assert wants_more(noises(0.06, "cpu"), 8)
    assert not wants_more(noises(0.06, "cpu"), 16)
    assert wants_more(noises(0.06, "cpu", "throughput", "p50", "execution"), 16)
    assert not wants_more(noises(3.0, "cpu"), 8)


def test_one_round_that_is_far_off_changes_nothing() -> None:
    def hiccup(number: int, name: SideName, facts: Facts) -> Facts:
        return (
            replace(facts, throughput=facts.throughput / 4, p50=facts.p50 * 4) if (number, name) == (3, "B") else facts
        )

    assert gate(rounds(by_round=hiccup)).verdict == "PASS"


# --- Holm -------------------------------------------------------------------------------------------------------------


def test_one_model_alone_fails_where_it_would_not_among_fifty() -> None:
    borderline = Case("m", "1", "2", rounds(factors(throughput=0.92), noise=0.01), metrics=DEFAULT)
    quiet = [Case(f"quiet{number}", "1", "2", rounds(noise=0.01, seed=number), metrics=DEFAULT) for number in range(14)]
    assert judge([borderline], 1)[0].metrics[1].rejected
    among = judge([borderline, *quiet], 1)[0]
    assert (among.verdict, among.metrics[1].rejected) == ("INCONCLUSIVE", False)
    assert "not significant among 60 comparisons (Holm)" in among.reasons[0]


# --- rounds that do not count -----------------------------------------------------------------------------------------


def spoiled(spoil: Callable[[Facts], Facts], side: SideName, count: int) -> list[Side]:
    return rounds(by_round=lambda number, name, facts: spoil(facts) if name == side and 1 <= number <= count else facts)


SPOILED: dict[str, tuple[Callable[[Facts], Facts], str]] = {
    "too few requests": (
        lambda facts: replace(facts, requests=500, p99=None),
        "p99 at fixed load was not compared: 7 of 10 rounds can be used (round 9: 500 requests, 662 are needed), 8 are needed",
    ),
    "an invalid client": (
        lambda facts: replace(facts, invalid="send lag p99 is 2 ms"),
        "p50 at fixed load was not compared: 7 of 10 rounds can be used "
        "(round 9: the measurement is not valid: send lag p99 is 2 ms), 8 are needed",
    ),
    "not complete": (
        lambda facts: replace(facts, complete=False),
        "throughput at saturation was not compared: 7 of 10 rounds can be used (round 9: not measured to its end), 8 are needed",
    ),
    "no success": (
        lambda facts: replace(facts, throughput=0.0),
        "throughput at saturation was not compared: 7 of 10 rounds can be used (round 9: no request succeeded), 8 are needed",
    ),
    "no statistics": (
        lambda facts: replace(facts, statistics=False),
        "compute with one in flight was not compared: 7 of 10 rounds can be used "
        "(round 9: no statistics from the server), 8 are needed",
    ),
    "other batches": (
        lambda facts: replace(facts, batches={32: 500}),
        "compute with one in flight was not compared: 7 of 10 rounds can be used "
        "(round 9: 0 executions had equal batch sizes on both sides, of 500), 8 are needed",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_metric_without_enough_rounds_is_undecided_and_says_what_is_missing(case: str) -> None:
    spoil, reason = SPOILED[case]
    found = gate(spoiled(spoil, "B", 3), metrics=METRICS)
    assert found.verdict == "INCONCLUSIVE"
    assert reason in found.reasons
    assert wants_extension([found]) == []  # more of the same would not help


@pytest.mark.parametrize("case", SPOILED)
def test_two_rounds_in_ten_may_be_lost(case: str) -> None:
    assert gate(spoiled(SPOILED[case][0], "B", 2), metrics=METRICS).verdict == "PASS"


def test_an_interrupted_gate_is_inconclusive() -> None:
    found = gate(rounds(factors(p50=2), count=4))
    assert found.verdict == "INCONCLUSIVE"
    assert found.reasons[0].endswith("was not compared: 4 of 4 rounds can be used, 7 are needed")


def test_no_rounds_at_all_are_inconclusive() -> None:
    found = gate([])
    assert (found.verdict, found.metrics, found.rounds) == ("INCONCLUSIVE", [], [])


# --- failed requests --------------------------------------------------------------------------------------------------


def test_failed_requests_fail_a_candidate_however_fast_it_is() -> None:
    sides = rounds((same, lambda facts: replace(facts, p50=1.0, failures={"HTTP 500": 3})))
    found = gate(sides)
    assert (found.verdict, found.attribution.cause) == ("FAIL", "errors")
    assert found.reasons == ["failed requests: baseline none of 780,000, candidate 60 of 300,000 (HTTP 500: 60)"]


def test_a_stray_failure_is_noted_on_a_pass() -> None:
    def stray(number: int, name: SideName, facts: Facts) -> Facts:
        return replace(facts, failures={"closed": 1}) if (number, name) == (4, "B") and facts.queue < 2 else facts

    found = gate(rounds((lambda facts: replace(facts, queue=5.0), same), by_round=stray))
    assert found.verdict == "PASS"
    assert found.reasons == ["2 of 30,000 requests of B got no answer, all in round 12: not counted"]


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
    assert found.verdict == "INCONCLUSIVE"
    assert (found.thresholds[0].measured, found.thresholds[0].verdict) == (None, "INCONCLUSIVE")
    assert any(reason.startswith("slo.p99_ms was not checked: 0 of 10 rounds") for reason in found.reasons)


# --- all models, two looks --------------------------------------------------------------------------------------------


def test_the_worst_verdict_is_everyones() -> None:
    passed, failed, unsure = gate(rounds()), gate(rounds(factors(p50=2))), gate(rounds(factors(p50=1.05)))
    assert overall([passed, unsure]) == "INCONCLUSIVE"
    assert overall([passed, unsure, failed]) == "FAIL"
    assert overall([passed]) == "PASS"
    assert overall([]) == "INCONCLUSIVE"
    assert EXIT_CODES == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}


def test_only_what_is_open_is_extended_and_what_was_decided_stays() -> None:
    def look(name: str, verdict: str) -> Gate:
        sides = {"PASS": rounds(), "FAIL": rounds(factors(p50=2)), "INCONCLUSIVE": rounds(factors(p50=1.05))}[verdict]
        return gate(sides).model_copy(update={"model": name})

    first = [look("a", "PASS"), look("b", "INCONCLUSIVE"), look("c", "FAIL")]
    second = [look("a", "INCONCLUSIVE"), look("b", "FAIL"), look("c", "PASS")]
    assert wants_extension(first) == ["b"]
    assert [item.verdict for item in settled(first, second)] == ["PASS", "FAIL", "FAIL"]


def test_the_same_seed_gives_the_same_gate() -> None:
    sides = rounds(noise=0.03)
    assert gate(sides) == gate(sides)


# --- how often it is right --------------------------------------------------------------------------------------------


def two_looks(changes: tuple[Change, Change], seed: int, noise: float, starved: float) -> Gate:
    """As `load ab` does it: the calibration says how many rounds there are, and an undecided gate gets as many again."""
    sides = rounds(changes, count=80, calibration=16, noise=noise, seed=seed, by_round=starving(seed, starved))
    noises = [noise_of(calibration_sides(sides), metric, 0.05, seed, LOOK_CONFIDENCE) for metric in DEFAULT]
    last = 16 + min(rounds_for(noises), 40)

    def look(until: int) -> list[Gate]:
        kept = [side for side in sides if side.round <= until]
        return judge([Case("m", "1", "2", kept, metrics=DEFAULT)], seed)

    first = look(last)
    return settled(first, look(2 * last - 16) if wants_extension(first) else [])[0]


def starving(seed: int, share: float) -> ByRound:
    """So many measurements get little of the processor: they take up to several times as long, and need more of it."""
    generator = np.random.default_rng(seed)

    def by_round(_number: int, _name: SideName, facts: Facts) -> Facts:
        if generator.random() >= share:
            return facts
        slower = 1 + generator.exponential(0.5)
        return replace(
            facts,
            throughput=facts.throughput / slower,
            p50=facts.p50 * slower,
            execution=facts.execution * slower,
            cpu=facts.cpu and facts.cpu * slower**0.5,
        )

    return by_round


RIGHT: dict[str, tuple[tuple[Change, Change], Verdict, float, float, int]] = {
    "the same version": ((same, same), "PASS", 0.02, 0.07, 12),
    "the same version, beside a neighbour": ((same, same), "PASS", 0.02, 0.4, 7),
    "10 % more compute": (factors(throughput=0.92, p50=1.09, cpu=1.09, execution=1.1), "FAIL", 0.02, 0.07, 12),
    "10 % more compute, beside a neighbour": (
        factors(throughput=0.92, p50=1.09, cpu=1.09, execution=1.1), "FAIL", 0.02, 0.4, 6,
    ),
    "20 % less throughput": (factors(throughput=0.8), "FAIL", 0.02, 0.07, 12),
    "20 % less throughput, beside a neighbour": (factors(throughput=0.8), "FAIL", 0.02, 0.4, 6),
}  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_of_twelve_gates_nearly_all_are_right_and_none_is_wrong(case: str) -> None:
    changes, verdict, noise, starved, at_least = RIGHT[case]
    found = Counter(two_looks(changes, seed, noise, starved).verdict for seed in range(12))
    assert found[verdict] >= at_least, found
    assert found["PASS" if verdict == "FAIL" else "FAIL"] == 0, found
