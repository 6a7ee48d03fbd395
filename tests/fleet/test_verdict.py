"""What a canary's figures mean."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from modelwright.fleet.verdict import Limits, Recorded, Traffic, judge, too_many_errors

LIMITS = Limits(max_error_rate=0.01, max_p99_ratio=1.2)


def side(version: int, p99_ms: float = 1.0, *, requests: int = 2000, failed: int = 0, rounds: int = 4) -> Recorded:
    """A version whose p99 is this one, in every round."""
    ns = np.full(requests // rounds, int(p99_ms * 1e6))
    return Recorded(version, requests + failed, failed, Counter({"HTTP 500": failed} if failed else {}), [ns] * rounds)


def test_equal_versions_pass() -> None:
    found = judge(side(1), side(2), Traffic(), LIMITS)
    assert found.passed
    assert (found.p99_ratio, found.p99_interval, found.error_rate) == (1.0, (1.0, 1.0), 0.0)
    assert found.text == "0 of 2,000 requests failed; p99 1.00 ms against 1.00 ms, 1.00 times (1.00 to 1.00)"


def test_a_slower_version_is_held_back_with_the_figure() -> None:
    found = judge(side(1), side(2, 1.5), Traffic(), LIMITS)
    assert found.against == ("p99: 1.50 ms against 1.00 ms, 1.50 times (1.50 to 1.50), allowed 1.20",)


def test_a_ratio_at_the_limit_passes() -> None:
    assert judge(side(1), side(2, 1.2), Traffic(), LIMITS).passed


def test_failed_requests_speak_against_it_with_their_kinds() -> None:
    found = judge(side(1), side(2, failed=100), Traffic(), LIMITS)
    assert found.against == ("errors: 100 of 2,100 requests failed (HTTP 500: 100): 4.76 %, allowed 1 %",)


@pytest.mark.parametrize(("failed", "passed"), [(20, True), (21, False)], ids=["at the limit", "above it"])
def test_the_share_of_failed_requests(failed: int, passed: bool) -> None:
    assert judge(side(1), side(2, requests=2000 - failed, failed=failed), Traffic(), LIMITS).passed is passed


def test_the_requests_of_clients_count_too() -> None:
    found = judge(side(1), side(2), Traffic(requests=100, failed=50), LIMITS)
    assert found.against == (
        "errors: 0 of 2,000 requests failed; 50 of 100 requests of clients failed: 2.38 %, allowed 1 %",
    )


def test_too_few_requests_decide_nothing_in_its_favour() -> None:
    found = judge(side(1), side(2, requests=100), Traffic(), LIMITS)
    assert found.against == ("p99: 100 requests succeeded, and a p99 needs 662 of each version",)


def test_a_ratio_that_one_round_makes_may_be_noise() -> None:
    new = side(2)
    new.latencies_ns[0] = np.full(500, 9_000_000)
    found = judge(side(1), new, Traffic(), LIMITS)
    assert found.p99_interval == (1.0, 9.0)
    assert found.against[0].endswith("9.00 times (1.00 to 9.00), allowed 1.20; that may be noise: bake longer (--bake), or when the machine is quieter")  # fmt: skip


def test_failures_of_the_served_version_are_noted() -> None:
    found = judge(side(1, failed=3), side(2), Traffic(), LIMITS)
    assert found.passed
    assert found.notes == ("version 1, which is served, failed 3 of 2,003",)


def test_the_load_ends_once_the_limit_cannot_be_kept() -> None:
    assert not too_many_errors(side(2, failed=10), 1000, LIMITS)
    assert too_many_errors(side(2, failed=11), 1000, LIMITS)
    assert too_many_errors(side(2, failed=1), 1000, Limits())
