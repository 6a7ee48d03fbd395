"""attribution.py: rounds made by hand, of every cause that can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from modelwright.loadtest.document import Attribution
from modelwright.loadtest.gate.attribution import attribute
from modelwright.loadtest.gate.rounds import FIXED, SATURATION, SINGLE
from tests.loadtest.synthetic import Facts, rounds

# What the baseline does in each regime: at saturation 32 requests in flight wait for busy instances.
BUSY = Facts(throughput=4000, queue=4.5, compute=2.5, outside=1.0, batches={8: 500, 16: 500})
CALM = Facts(p50=2.0, queue=0.5, compute=1.2, outside=0.5, batches={1: 2000, 2: 2000, 4: 1000})
Given = Mapping[str, Any]


def attributed(
    busy: Given, calm: Given, regime: str = FIXED, worse: bool = True, noise: float = 1e-5, failed: str = ""
) -> Attribution:
    """The candidate with these facts in place of the baseline's, by regime."""
    at_saturation = rounds((lambda facts: replace(facts, **busy), lambda facts: facts), base=BUSY, noise=noise)
    at_fixed_load = rounds((lambda facts: facts, lambda facts: replace(facts, **calm)), base=CALM, noise=noise)
    sides = [
        replace(one, measurements={**other.measurements, SATURATION: one.measurements[SATURATION]})
        for one, other in zip(at_saturation, at_fixed_load, strict=True)
    ]
    return attribute(sides, regime, 1, worse, failed, ["config: x 1 → 2"])


HEAVIER = (
    {"throughput": 3650, "queue": 5.0, "compute": 2.75, "execution": 1.65},
    {"queue": 0.75, "compute": 1.32, "execution": 1.65},
)
# A longer queue delay: requests wait for company, batches grow, the instances have nothing to do meanwhile.
DELAY = (
    {"throughput": 3200, "queue": 6.2, "compute": 2.8, "batches": {16: 300, 32: 200}},
    {"queue": 4.4, "compute": 2.0, "batches": {2: 300, 4: 800, 8: 300}},
)
# The same where all requests wait until the delay is over: one large batch, which computes longer, then nothing to do.
COMPANY = (
    {"throughput": 3300, "queue": 3.9, "compute": 4.8, "execution": 1.55, "batches": {32: 400}},
    {"queue": 6.5, "compute": 1.5, "execution": 2.1},
)
# One instance in place of two, on two cores: each execution has a core of its own, and there are fewer of them.
INSTANCES = (
    {"throughput": 2900, "queue": 7.8, "compute": 2.2, "execution": 1.3, "batches": {16: 600, 32: 50}},
    {"queue": 1.4, "compute": 1.1, "execution": 1.38, "batches": {1: 900, 2: 1500, 4: 1400}},
)
# Dynamic batching switched off: an execution a request.
NO_BATCHING = (
    {"throughput": 1600, "queue": 18.0, "compute": 0.8, "batches": {1: 9000}},
    {"queue": 6.0, "compute": 0.7, "batches": {1: 7000}},
)
PADDED: tuple[Given, Given] = ({}, {"queue": 0.6, "compute": 2.6, "batches": {4: 500, 8: 800}})
NETWORK = ({"outside": 2.0, "throughput": 3600}, {"outside": 1.5})
TENSOR_COPIES: tuple[Given, Given] = ({}, {"compute": 1.8})
OVERLOADED = (
    {"throughput": 2500, "queue": 9.0, "compute": 4.0, "execution": 2.4},
    {"queue": 300.0, "compute": 2.0, "execution": 2.4},
)

CAUSES: dict[str, tuple[tuple[Given, Given], str, str, str]] = {
    "a heavier graph, at the fixed load": (HEAVIER, FIXED, "compute", "so requests wait longer for it: queue time 0.5"),
    "a heavier graph, at saturation": (HEAVIER, SATURATION, "compute", "ms at equal batch sizes, +10."),
    "a graph so heavy that the load is too much": (OVERLOADED, FIXED, "compute", "ms at equal batch sizes, +60."),
    "a longer queue delay, at the fixed load": (DELAY, FIXED, "queue", "; mean batch 2.00 → 4.43"),
    "a longer queue delay, at saturation": (DELAY, SATURATION, "queue", "queue time 4.5"),
    "a queue delay with company, at saturation": (COMPANY, SATURATION, "queue", "17.3 % less of the time; mean batch 12.0"),
    "a queue delay with company, one in flight": (COMPANY, SINGLE, "queue", "queue time 0.5"),
    "fewer instances, at the fixed load": (INSTANCES, FIXED, "queue", "queue time 0.50"),
    "fewer instances, at saturation": (INSTANCES, SATURATION, "queue", "queue time 4.5"),
    "no batching any more, at the fixed load": (NO_BATCHING, FIXED, "batch mix", "mean batch 2.00 → 1.00; queue time 0.50"),
    "no batching any more, at saturation": (NO_BATCHING, SATURATION, "batch mix", "mean batch 12.0 → 1.00; queue time 4.5"),
    "larger batches that take longer": (PADDED, FIXED, "batch mix", "mean batch 2.00 → 6.46; compute time 1.2"),
    "slower copies of tensors": (TENSOR_COPIES, FIXED, "compute", "compute time 1.20 → 1.8"),
    "a slower network, at the fixed load": (NETWORK, FIXED, "network and client", "network and client 0.50"),
    "a slower network, at saturation": (NETWORK, SATURATION, "network and client", "network and client 1.0"),
    "nothing": (({}, {}), FIXED, "nothing moved", "a request's mean time did not change: 2.2"),
}  # fmt: skip


@pytest.mark.parametrize("case", CAUSES)
def test_the_cause_is_reported(case: str) -> None:
    (busy, calm), regime, cause, says = CAUSES[case]
    found = attributed(busy, calm, regime)
    assert (found.cause, found.regime) == (cause, regime), found.explanation
    assert says in found.explanation
    assert found.differences == ["config: x 1 → 2"]


@pytest.mark.parametrize("case", ["a heavier graph, at the fixed load", "a longer queue delay, at the fixed load"])
def test_the_cause_is_reported_through_noise(case: str) -> None:
    (busy, calm), regime, cause, _ = CAUSES[case]
    assert attributed(busy, calm, regime, noise=0.03).cause == cause


def test_the_whole_sentence() -> None:
    assert attributed(*DELAY, noise=0).explanation == (
        "queue time 0.500 → 4.40 ms of a request's 2.20 → 6.90 ms; mean batch 2.00 → 4.43"
    )
    assert attributed(*HEAVIER, noise=0).explanation == (
        "one execution computes 1.88 → 2.06 ms at equal batch sizes, +10.0 % (95 % interval +10.0 % … +10.0 %); "
        "so requests wait longer for it: queue time 0.500 → 0.750 ms of a request's 2.20 → 2.57 ms"
    )


def test_the_shares_are_of_the_regime_and_add_up_to_the_mean() -> None:
    found = attributed(*DELAY, regime=SATURATION, noise=0)
    parts = {share.part: (share.baseline_ms, share.candidate_ms) for share in found.shares}
    assert list(parts) == ["queue", "compute", "network and client"]
    assert parts["queue"] == pytest.approx((4.5, 6.2))
    assert parts["compute"] == pytest.approx((2.5, 2.8))
    assert parts["network and client"] == pytest.approx((1.0, 1.0))
    assert found.baseline_batch == 12
    assert found.candidate_batch == pytest.approx(22.4)
    assert found.baseline_batches == {8: 0.5, 16: 0.5}
    assert found.candidate_batches == {16: 0.6, 32: 0.4}


def test_failed_requests_are_the_cause_whatever_else_moved() -> None:
    found = attributed(*HEAVIER, failed="candidate failed 3 of 4")
    assert (found.cause, found.explanation) == ("errors", "candidate failed 3 of 4")
    assert found.shares


def test_a_small_slowdown_of_compute_does_not_explain_a_long_queue() -> None:
    busy, calm = {**DELAY[0], "execution": 1.54}, {**DELAY[1], "execution": 1.54}
    assert attributed(busy, calm).cause == "queue"
    assert attributed(busy, calm, SATURATION).cause == "queue"


@pytest.mark.parametrize("regime", [SATURATION, SINGLE])
def test_an_execution_that_takes_longer_after_a_pause_is_not_the_cause_of_the_pause(regime: str) -> None:
    busy, calm = {"throughput": 3200, "queue": 6.2}, {"queue": 8.5, "compute": 1.65, "execution": 2.1}
    assert attributed(busy, calm, regime).cause == "queue"
    heavier = {"throughput": 3000, "execution": 2.1, "compute": 3.5}, {"compute": 1.65, "execution": 2.1}
    assert attributed(*heavier, regime).cause == "compute"


FASTER: dict[str, tuple[tuple[Given, Given], str, str]] = {
    "a lighter graph": (
        ({"throughput": 4400, "execution": 1.35}, {"execution": 1.35, "queue": 0.35, "compute": 1.08}),
        "compute",
        "so requests wait less for it",
    ),
    "a shorter queue delay": (({}, {"queue": 0.1, "batches": {1: 6000, 2: 100}}), "queue", "queue time 0.5"),
    "batching": (({}, {"queue": 0.1, "batches": {8: 900}}), "batch mix", "mean batch 2.00 → 8.00"),
}


@pytest.mark.parametrize("case", FASTER)
def test_a_faster_candidate_is_read_with_the_signs_turned(case: str) -> None:
    (busy, calm), cause, says = FASTER[case]
    found = attributed(busy, calm, worse=False)
    assert found.cause == cause, found.explanation
    assert says in found.explanation


@pytest.mark.parametrize("facts", [{"statistics": False}, {"complete": False}])
def test_without_the_servers_statistics_the_cause_is_not_known(facts: Given) -> None:
    found = attributed(facts, facts)
    assert (found.cause, found.shares, found.candidate_batch) == ("unknown", [], None)


def test_no_rounds_have_no_cause() -> None:
    found = attribute([], FIXED, 1, False, "", [])
    assert (found.cause, found.shares, found.baseline_batches) == ("unknown", [], {})
