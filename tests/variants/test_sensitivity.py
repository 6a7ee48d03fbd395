"""The search for the fewest layers in float."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from modelwright.steps.sensitivity import FloatSearch, ranked


def test_layers_are_ranked_worst_first() -> None:
    harms = {"a": 0.1, "b": 0.5, "c": 0.1}
    assert [(item.layer, item.harm) for item in ranked(list(harms), lambda name: harms[name])] == [
        ("b", 0.5),
        ("a", 0.1),
        ("c", 0.1),
    ]


@given(layers=st.integers(2, 80), needed=st.integers(1, 80))
def test_as_few_as_pass_are_found(layers: int, needed: int) -> None:
    """Where the worst `needed` layers must be in float, and no others."""
    order = list(range(layers))

    def passes(in_float: Sequence[int]) -> bool:
        return set(order[:needed]) <= set(in_float)

    search = FloatSearch(passes, budget=1000)
    found = search.fewest(order)
    if needed >= layers:
        assert found is None
    else:
        assert found == order[:needed]


@given(layers=st.integers(2, 80), budget=st.integers(0, 30), bad=st.sets(st.integers(0, 79), min_size=1))
def test_a_budget_holds_and_what_is_found_passed(layers: int, budget: int, bad: set[int]) -> None:
    asked: list[list[int]] = []

    def passes(in_float: Sequence[int]) -> bool:
        asked.append(list(in_float))
        return bad <= set(in_float)

    search = FloatSearch(passes, budget)
    found = search.fewest(list(range(layers)))
    assert len(asked) == search.evaluations <= budget
    assert found is None or (bad <= set(found) and len(found) < layers)


def test_layers_that_need_not_be_in_float_are_tried_in_int8_again() -> None:
    search = FloatSearch[str](lambda in_float: "c" in in_float, budget=20)
    assert search.fewest(["a", "b", "c", "d", "e", "f"]) == ["c"]


def test_the_last_evaluation_goes_to_the_largest_candidate() -> None:
    asked: list[int] = []

    def passes(in_float: Sequence[int]) -> bool:
        asked.append(len(in_float))
        return len(in_float) >= 40

    assert FloatSearch(passes, budget=3).fewest(list(range(60))) == list(range(59))
    assert asked == [1, 2, 59]


def test_one_layer_alone_cannot_be_left_out() -> None:
    assert FloatSearch[str](lambda in_float: True, budget=5).fewest(["only"]) is None
