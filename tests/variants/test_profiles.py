"""Profiles as model.yaml has them, resolved to the shape of each input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from modelwright.errors import SpecError
from modelwright.facts.made import OnnxTensor
from modelwright.facts.plan import PlanProfile
from modelwright.project.spec import ModelSpec, parse_spec
from modelwright.variants.profiles import ProfileSpec, resolved, shaped_inputs
from modelwright.variants.registry import LOOKUPS


def spec(inputs: list[dict[str, Any]], **serving: Any) -> ModelSpec:
    return parse_spec(
        {
            "name": "m",
            "source": {"kind": "onnx", "path": "m.onnx"},
            "samples": "data:samples",
            "inputs": inputs,
            "outputs": [{"name": "y", "dtype": "FP32", "shape": [1]}],
            "serving": serving,
        },
        LOOKUPS,
    )


def tensor(name: str, *shape: int | str) -> dict[str, Any]:
    return {"name": name, "dtype": "FP32", "shape": list(shape)}


def resolve(
    model: ModelSpec, *profiles: dict[str, Any], graph: Mapping[str, tuple[int | str, ...]] | None = None
) -> Any:
    """{input: (min, opt, max)} of each profile. `graph` is what the ONNX file declares, batch included."""
    declared = (
        None if graph is None else [OnnxTensor(name=name, dtype="FP32", dims=dims) for name, dims in graph.items()]
    )
    inputs = shaped_inputs(model, declared)
    assert inputs is not None
    made = resolved([ProfileSpec.model_validate(profile) for profile in profiles], inputs, model, "m.yaml: profiles")
    return [{name: (s.min, s.opt, s.max) for name, s in profile.inputs.items()} for profile in made]


def test_without_profiles_the_batch_is_that_of_serving() -> None:
    model = spec([tensor("x", 3, 8)], max_batch_size=16)
    assert resolve(model) == [{"x": ((1, 3, 8), (16, 3, 8), (16, 3, 8))}]


@pytest.mark.parametrize(("preferred", "opt"), [([4, 8], 8), ([4, 32], 4), ([], 16), (["8"], 16), (8, 16)])
def test_the_batch_is_made_fast_for_the_largest_preferred_one(preferred: Any, opt: int) -> None:
    model = spec([tensor("x", 2)], max_batch_size=16, dynamic_batching={"preferred_batch_size": preferred})
    assert resolve(model)[0]["x"][1] == (opt, 2)


def test_a_named_dimension_has_its_range_wherever_it_stands() -> None:
    model = spec([tensor("a", "n"), tensor("b", 2, "n")], max_batch_size=4)
    found = resolve(model, {"dims": {"n": {"min": 1, "opt": 8, "max": 9}}, "batch": 2})
    assert found == [{"a": ((2, 1), (2, 8), (2, 9)), "b": ((2, 2, 1), (2, 2, 8), (2, 2, 9))}]


def test_without_a_batch_all_dimensions_are_the_inputs_own() -> None:
    model = spec([tensor("x", "rows", 2)])
    assert resolve(model, {"dims": {"rows": {"min": 1, "opt": 4, "max": 8}}}) == [{"x": ((1, 2), (4, 2), (8, 2))}]


def test_the_names_of_the_graph_count_where_model_yaml_has_none() -> None:
    model = spec([], max_batch_size=4)
    dims = {"x": ("batch", "seq", 3), "mask": ("batch", "seq")}
    found = resolve(model, {"dims": {"seq": {"min": 1, "opt": 2, "max": 3}}}, graph=dims)
    assert found == [{"x": ((1, 1, 3), (4, 2, 3), (4, 3, 3)), "mask": ((1, 1), (4, 2), (4, 3))}]


def test_model_yaml_may_fix_a_dynamic_dimension_or_name_it() -> None:
    model = spec([tensor("x", 5, "n")], max_batch_size=4)
    found = resolve(model, {"dims": {"n": 7}}, graph={"x": (-1, -1, "s1")})
    assert found == [{"x": ((1, 5, 7), (4, 5, 7), (4, 5, 7))}]


def test_a_reshape_leaves_the_shape_to_the_graph() -> None:
    model = spec([tensor("x", 6)], max_batch_size=4, input=[{"name": "x", "reshape": {"shape": [2, 3]}}])
    assert resolve(model, graph={"x": (-1, 2, 3)}) == [{"x": ((1, 2, 3), (4, 2, 3), (4, 2, 3))}]


def test_what_the_graph_alone_can_say_is_not_asked_before_it_is_made() -> None:
    assert shaped_inputs(spec([], max_batch_size=4)) is None
    assert shaped_inputs(spec([tensor("x", -1)], max_batch_size=4)) is None
    assert shaped_inputs(spec([tensor("x", 2)], input=[{"name": "x", "reshape": {"shape": [1, 2]}}])) is None


def test_inputs_whose_dimensions_have_no_name_are_given_whole() -> None:
    model = spec([], max_batch_size=4)
    graph = {"image": (-1, 3, -1, -1), "size": (-1, 2)}
    ranges = {"min": 32, "opt": 64, "max": 96}
    found = resolve(model, {"inputs": {"image": [3, ranges, ranges]}}, graph=graph)
    assert found[0]["image"] == ((1, 3, 32, 32), (4, 3, 64, 64), (4, 3, 96, 96))
    assert found[0]["size"] == ((1, 2), (4, 2), (4, 2))


@pytest.mark.parametrize(
    ("shape", "profile", "message", "hint"),
    [
        (
            ("n",),
            {},
            "m.yaml: profiles[0]: 'n' (of x) is dynamic, and a plan takes only the sizes that it was built for",
            "write, with your sizes: profiles: [{dims: {n: {min: 1, opt: 64, max: 256}}}]",
        ),
        (
            (3, -1),
            {},
            "m.yaml: profiles[0]: a dimension of 'x' is dynamic and has no name",
            "profiles: [{inputs: {x: [3, {min: 1, opt: 64, max: 256}]}}]",
        ),
        (
            ("n",),
            {"dims": {"m": 3}},
            "'m' is not the name of a dimension: the dynamic dimensions are n",
            "known: n",
        ),
        ((3,), {"dims": {"n": 3}}, "'n' is not the name of a dimension: no dimension is dynamic", "remove it"),
        ((3,), {"batch": 5}, "m.yaml: profiles[0].batch: max is 5, and serving.max_batch_size 4", "lower max"),
        ((3,), {"inputs": {"z": [3]}}, "the model has no input 'z'", "known: x"),
        (
            (3,),
            {"inputs": {"x": [{"min": 1, "opt": 3, "max": 3}]}},
            "inputs.x[0]: this dimension is always 3",
            "write 3",
        ),
        ((3,), {"inputs": {"x": []}}, "inputs.x: 0 dimensions, and the input has 1, batch left out", ""),
    ],
    ids=["named", "unnamed", "unknown name", "none dynamic", "batch", "input", "fixed", "too few"],
)
def test_what_is_missing_or_wrong_is_named(
    shape: tuple[int | str, ...], profile: dict[str, Any], message: str, hint: str
) -> None:
    model = spec([], max_batch_size=4)
    with pytest.raises(SpecError) as caught:
        resolve(model, profile, graph={"x": (-1, *shape)})
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_batch_range_needs_a_batch() -> None:
    with pytest.raises(SpecError, match=r"serving\.max_batch_size is 0, so requests have no batch"):
        resolve(spec([tensor("x", 2)]), {"batch": 2})


def test_profiles_are_records() -> None:
    """A request holds them, and its digest is that of their JSON."""
    made = PlanProfile.model_validate({"inputs": {"x": {"min": [1], "opt": [1], "max": [2]}}})
    assert PlanProfile.model_validate(made.as_json()) == made
