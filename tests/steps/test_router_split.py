"""How a router's model.py splits requests: the code that runs in the server, without one."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

PARAMETERS = {"arm.old": "90", "arm.new": "10", "sticky": "user"}
USERS = [f"user-{number}" for number in range(4_000)]


@pytest.fixture(scope="module")
def router() -> Any:
    """modelwright/steps/router_model.py, which imports what only the server has."""
    backend = ModuleType("triton_python_backend_utils")
    backend.__dict__["TRITONSERVER_RESPONSE_COMPLETE_FINAL"] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, backend.__name__, backend)
        patch.delitem(sys.modules, "modelwright.steps.router_model", raising=False)
        yield importlib.import_module("modelwright.steps.router_model")
        sys.modules.pop("modelwright.steps.router_model", None)


def chosen(router: Any, parameters: Mapping[str, str], seed: str = "live") -> dict[str, str]:
    """{user: the arm that answers}."""
    split = router.split_of(seed, parameters)
    return {user: split.choose(user).name for user in USERS}


def moved(before: Mapping[str, str], after: Mapping[str, str]) -> Counter[tuple[str, str]]:
    return Counter((before[user], after[user]) for user in USERS if before[user] != after[user])


def test_each_arm_gets_the_share_of_its_weight(router: Any) -> None:
    shares = Counter(chosen(router, PARAMETERS).values())
    assert shares["new"] / len(USERS) == pytest.approx(0.1, abs=0.02)
    split = router.split_of("live", PARAMETERS)
    at_random = Counter(split.choose().name for _ in USERS)
    assert at_random["new"] / len(USERS) == pytest.approx(0.1, abs=0.02)


def test_a_value_goes_to_the_same_arm_in_every_process_and_release(router: Any) -> None:
    split = router.split_of("live", {"arm.old": "1", "arm.new": "1", "sticky": "user"})
    assert [split.choose(number).name for number in range(12)] == [
        "new", "new", "old", "new", "new", "old", "old", "old", "new", "new", "old", "old",
    ]  # fmt: skip


def test_a_number_and_its_text_are_one_value(router: Any) -> None:
    split = router.split_of("live", {"arm.old": "1", "arm.new": "1"})
    for number in range(50):
        assert split.choose(number) == split.choose(str(number))
    assert split.choose(True) == split.choose("true")
    assert split.choose(2**62) == split.choose(str(2**62))


def test_other_weights_move_no_more_values_than_they_must(router: Any) -> None:
    before, after = chosen(router, PARAMETERS), chosen(router, {**PARAMETERS, "arm.old": "80", "arm.new": "20"})
    assert set(moved(before, after)) == {("old", "new")}
    assert moved(before, after).total() / len(USERS) == pytest.approx(0.1, abs=0.02)


def test_one_arms_weight_moves_values_to_it_and_between_no_two_others(router: Any) -> None:
    three = {"arm.a": "80", "arm.b": "10", "arm.c": "10"}
    before = chosen(router, three)
    assert set(moved(before, chosen(router, {**three, "arm.c": "40"}))) == {("a", "c"), ("b", "c")}
    assert set(moved(before, chosen(router, {**three, "arm.d": "10"}))) == {("a", "d"), ("b", "d"), ("c", "d")}
    assert set(moved(before, chosen(router, {**three, "arm.c": "0"}))) == {("c", "a"), ("c", "b")}


def test_the_same_weights_in_another_measure_are_the_same_split(router: Any) -> None:
    assert chosen(router, {"arm.old": "0.9", "arm.new": "0.1"}) == chosen(router, PARAMETERS)


def test_two_routers_split_independently(router: Any) -> None:
    half = {"arm.old": "1", "arm.new": "1"}
    one, other = chosen(router, half), chosen(router, half, seed="other")
    both = sum(one[user] == other[user] == "new" for user in USERS)
    assert both / len(USERS) == pytest.approx(0.25, abs=0.03)


def test_arms_with_versions_and_shadows(router: Any) -> None:
    split = router.split_of("live", {"arm.m:3": "1", "arm.m": "2.5", "arm.off": "0", "shadow.n.x": "0.1", "X": "y"})
    assert [(arm.model, arm.version, arm.weight) for arm in split.arms] == [("m", -1, 2.5), ("m", 3, 1.0)]
    assert [(shadow.model, shadow.version, shadow.weight) for shadow in split.shadows] == [("n.x", -1, 0.1)]
    assert split.arms[1].labels == {"arm": "m", "version": "3"}
    assert split.arms[0].labels == {"arm": "m", "version": "newest"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "no arm has a weight above 0"),
        ({"arm.a": "0", "arm.b": "0"}, "no arm has a weight above 0"),
        ({"arm.a": "-1"}, "parameter arm.a: '-1' is not a number from 0"),
        ({"arm.a": "many"}, "parameter arm.a: 'many' is not a number from 0"),
        ({"arm.a": "nan"}, "'nan' is not a number from 0"),
        ({"arm.a": "inf"}, "'inf' is not a number from 0"),
        ({"arm.a:new": "1"}, "parameter arm.a:new: after the point stands MODEL, or MODEL:VERSION"),
        ({"arm.:1": "1"}, "after the point stands MODEL"),
        ({"arm.": "1"}, "parameter arm.: unknown; a router has arm.MODEL, shadow.MODEL and sticky"),
        ({"arms.a": "1"}, "parameter arms.a: unknown"),
        ({"arm.a": "1", "shadow.b": "2"}, "parameter shadow.b: '2' is not a share of the requests, such as 0.1"),
        ({"arm.a": "1", "shadow.b": "0"}, "parameter shadow.b: '0' is not a share"),
        ({"arm.a": "1", "sticky": ""}, "parameter sticky: it is empty"),
        ({"arm.a": "1", "Sticky": "user"}, "parameter Sticky: unknown"),
    ],
)
def test_parameters_that_cannot_be_meant(router: Any, parameters: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        router.split_of("live", parameters)
