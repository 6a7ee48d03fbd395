"""Routers: what model.yaml may say, what a change of it means, and what is published."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from modelwright.build.workspace import open_workspace
from modelwright.config.model_config import config_of, tensors_of
from modelwright.errors import RepositoryError
from modelwright.repository import moves
from modelwright.repository.pins import needed
from modelwright.triton.layout import CONFIG
from tests.conftest import ONNX_YAML, PYTHON_YAML, Recorder, Sandbox

TENSORS = "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: FP32, shape: [2]}]\n"
ARM_YAML = TENSORS + ONNX_YAML.replace("gates: {accuracy: {min: 0.9}}\n", "")
SPLIT = "{kind: router, arms: [{model: doubled, weight: 90}, {model: tripled, weight: 10}]}"


def arms(sandbox: Sandbox, second: str = ARM_YAML) -> None:
    sandbox.onnx_builder("doubled", ARM_YAML.replace("max_batch_size: 8", "max_batch_size: 8, dynamic_batching: {}"))
    sandbox.onnx_builder("tripled", second, factor=3.0)


def router(sandbox: Sandbox, source: str = SPLIT, more: str = "", name: str = "live") -> None:
    sandbox.write(name, model_yaml=f"source: {source}\n{more}")


def parameters(sandbox: Sandbox) -> dict[str, str]:
    builder = open_workspace(sandbox.project).builders["live"]
    config = config_of(builder, tensors_of(builder))
    return {key: config.parameters[key].string_value for key in sorted(config.parameters)}


def fault(sandbox: Sandbox) -> str:
    error = open_workspace(sandbox.project).faults.errors["live"]
    return f"{error.message}; hint: {error.hint}"


def test_a_router_has_the_tensors_and_samples_of_its_arms_and_the_smallest_batch(sandbox: Sandbox) -> None:
    arms(sandbox, ARM_YAML.replace("max_batch_size: 8", "max_batch_size: 4"))
    router(sandbox)
    spec = sandbox.builders["live"].spec
    assert (spec.inputs, spec.max_batch_size) == (sandbox.builders["doubled"].spec.inputs, 4)
    steps = {step.id: step for step in open_workspace(sandbox.project).steps}
    assert steps["live", "verify"].needs["samples"] == ("doubled", "samples")


def test_what_config_pbtxt_says_of_the_split(sandbox: Sandbox) -> None:
    arms(sandbox)
    router(
        sandbox,
        "{kind: router, arms: [{model: doubled, weight: 0.5}, {model: tripled, weight: 10}], sticky: user_id,"
        " shadow: [{model: tripled, fraction: 0.05}]}",
        "serving: {parameters: {EXECUTION_ENV_PATH: {string_value: /x}}}",
    )
    assert parameters(sandbox) == {
        "EXECUTION_ENV_PATH": "/x",
        "arm.doubled": "0.5",
        "arm.tripled": "10",
        "shadow.tripled": "0.05",
        "sticky": "user_id",
    }


def keys(sandbox: Sandbox) -> Mapping[tuple[str, str], object]:
    return {step.id: step.key_content({}) for step in open_workspace(sandbox.project).steps}


def test_weights_and_the_sticky_parameter_are_in_no_key_and_the_arms_are(sandbox: Sandbox) -> None:
    arms(sandbox)
    router(sandbox)
    before = keys(sandbox)
    router(sandbox, SPLIT.replace("90", "70").replace("10}]", "30}], sticky: user_id"))
    assert keys(sandbox) == before
    router(sandbox, SPLIT.replace("10}]", "10}], shadow: [{model: tripled, fraction: 1}]"))
    after = keys(sandbox)
    assert {step for step in before if before[step] != after[step]} == {("live", "verify")}


def test_a_key_of_a_router_changes_with_its_tensors(sandbox: Sandbox) -> None:
    arms(sandbox)
    router(sandbox)
    before = keys(sandbox)
    for name in ("doubled", "tripled"):
        (sandbox.root / f"builders/{name}/model.yaml").write_text(ARM_YAML.replace("shape: [2]", "shape: [-1]"))
    assert keys(sandbox)["live", "router"] != before["live", "router"]


ALONE = "{kind: router, arms: [{model: doubled, weight: 1}]}"
FAULTS = {
    "no arms": ("{kind: router}", "", "source.arms: missing"),
    "an empty list of arms": ("{kind: router, arms: []}", "", "source.arms: "),
    "one arm": (
        ALONE,
        "",
        "one arm gets all requests, there is nothing to split: add an arm, or a shadow; for another",
    ),
    "all weights zero": (
        SPLIT.replace("90", "0").replace("10", "0"),
        "",
        "all weights are 0: give one arm a weight abo",
    ),
    "a negative weight": (SPLIT.replace("90", "-9"), "", "arms[0].weight: input should be greater than or equal to 0"),
    "a weight that is text": (SPLIT.replace("90", "many"), "", "source.arms[0].weight: expected a number, got 'many'"),
    "a weight that is true": (SPLIT.replace("90", "true"), "", "source.arms[0].weight: expected a number, got True"),
    "a weight that is no number": (SPLIT.replace("90", ".nan"), "", "source.arms[0].weight: "),
    "an unknown field": (SPLIT.replace("90", "90, share: 1"), "", "source.arms[0].share: unknown field"),
    "an unknown arm": (
        SPLIT.replace("doubled", "doubld"),
        "",
        "no builder makes a model named 'doubld'; hint: did you",
    ),
    "itself": (SPLIT.replace("tripled", "live"), "", "arms[1].model: a router cannot send requests to itself"),
    "a circle": (SPLIT.replace("tripled", "around"), "", "models run each other in a circle: live → around → live"),
    "another router": (SPLIT.replace("tripled", "other"), "", "other is of kind router and passes requests on itself"),
    "a faulty arm": (SPLIT.replace("tripled", "broken"), "", "source.arms[1].model: broken is faulty itself"),
    "an arm twice": (SPLIT.replace("tripled", "doubled"), "", "source.arms: doubled stands there twice"),
    "a version that is not there": (
        SPLIT.replace("doubled, ", "doubled, version: 7, "),
        "",
        "source.arms[0].version: doubled has no version 7: none is published; hint: name one that is there",
    ),
    "no version": (SPLIT.replace("doubled, ", "doubled, version: x, "), "", "version: a version is a whole number"),
    "no sticky parameter": (SPLIT.replace("10}]", "10}], sticky: ''"), "", "source.sticky: "),
    "a sticky number": (SPLIT.replace("10}]", "10}], sticky: 5"), "", "source.sticky: "),
    "a shadow of all twice": (
        SPLIT.replace("10}]", "10}], shadow: [{model: tripled, fraction: 2}]"),
        "",
        "source.shadow[0].fraction: input should be less than or equal to 1",
    ),
    "an unknown shadow": (
        SPLIT.replace("10}]", "10}], shadow: [{model: gone, fraction: 1}]"),
        "",
        "source.shadow[0].model: no builder makes a model named 'gone'",
    ),
    "tensors of its own": (SPLIT, TENSORS, "inputs: a router has none of its own"),
    "a batch size of its own": (SPLIT, "serving: {max_batch_size: 4}", "max_batch_size: a router has that of its arms"),
    "a warm-up": (SPLIT, "serving: {model_warmup: []}", "it would call arms that are not loaded yet"),
    "parameters": (
        SPLIT,
        "serving: {parameters: {arm.x: {string_value: a}}}",
        "arm.x: a router's own follow from source",
    ),
}


@pytest.mark.parametrize(("source", "more", "message"), FAULTS.values(), ids=FAULTS)
def test_a_router_that_cannot_work_is_an_error_in_the_plan(
    sandbox: Sandbox, source: str, more: str, message: str
) -> None:
    arms(sandbox)
    router(sandbox, name="other")
    sandbox.write("broken", model_yaml="source: {kind: nothing}\n")
    sandbox.python_builder("around", PYTHON_YAML.replace("kind: python", "kind: python, calls: [live]"))
    router(sandbox, source, more)
    assert message in fault(sandbox)


UNLIKE = {
    "another input": (
        ARM_YAML.replace("name: x", "name: z"),
        "source.arms[1]: tripled has an input 'z', which doubled has not; hint: known: x",
    ),
    "another type": (
        ARM_YAML.replace("FP32", "FP16"),
        "tripled: input 'x' is FP16 [2], and FP32 [2] of doubled; hint: the models that a router calls have the same",
    ),
    "another shape": (
        ARM_YAML.replace("shape: [2]", "shape: [3]"),
        "tripled: input 'x' is FP32 [3], and FP32 [2] of doubled",
    ),
    "another rank": (
        ARM_YAML.replace("name: y, dtype: FP32, shape: [2]", "name: y, dtype: FP32, shape: [2, 1]"),
        "tripled: output 'y' is FP32 [2, 1], and FP32 [2] of doubled",
    ),
    "one output more": (
        ARM_YAML.replace("{name: y,", "{name: w, dtype: FP32, shape: [2]}, {name: y,"),
        "tripled has an output 'w', which doubled has not",
    ),
    "no batches": (
        ARM_YAML.replace("max_batch_size: 8", "max_batch_size: 0"),
        "tripled has max_batch_size 0, doubled has 8; hint: either all of them take batches, or none",
    ),
    "sequences": (
        ARM_YAML.replace("max_batch_size: 8", "max_batch_size: 8, sequence_batching: {}"),
        "tripled takes sequences, whose requests would go to several arms; hint: remove it here",
    ),
}


@pytest.mark.parametrize(("second", "message"), UNLIKE.values(), ids=UNLIKE)
def test_an_arm_that_cannot_stand_in_for_the_first(sandbox: Sandbox, second: str, message: str) -> None:
    arms(sandbox, second)
    router(sandbox)
    assert message in fault(sandbox)


def test_a_release_that_is_too_old(sandbox: Sandbox) -> None:
    arms(sandbox)
    router(sandbox)
    file = sandbox.root / "modelwright.toml"
    file.write_text(file.read_text().replace('triton = "26.07"', 'triton = "24.09"'))
    assert "source.kind router: it is for Triton 24.10 and newer, and this project is for 24.09" in fault(sandbox)


def test_a_decoupled_arm(sandbox: Sandbox) -> None:
    arms(sandbox)
    decoupled = "max_batch_size: 8, model_transaction_policy: {decoupled: true}"
    sandbox.python_builder("tripled", PYTHON_YAML.replace("max_batch_size: 8", decoupled))
    router(sandbox)
    assert "tripled is decoupled: it gives any number of answers to a request, and a router gives" in fault(sandbox)


@pytest.mark.server
def test_a_router_is_verified_published_and_changed(sandbox: Sandbox) -> None:
    arms(sandbox)
    router(sandbox)
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(
        ("doubled", "live", "tripled"), "new"
    )
    assert outcomes["live"].warnings == ()  # requests that went through the router ran together in its arms
    model = sandbox.repository.folder("live", 1) / "model.py"
    assert model.read_text().startswith("# The router live, made by Modelwright.\n# input x: FP32 [2]\n# output y: ")

    # Other weights: config.pbtxt alone changes, and no step runs.
    before, recorder = sandbox.published(), Recorder()
    router(sandbox, SPLIT.replace("90", "50"))
    assert sandbox.build(listener=recorder)["live"].status == "config"
    assert recorder.ran == []
    assert {name for name, digest in sandbox.published().items() if before[name] != digest} == {f"live/{CONFIG}"}
    assert 'key: "arm.doubled", value: { string_value: "50" }' in sandbox.config("live")

    # Another version of an arm beside the first one: version 1 is pinned, the newest answers, too.
    sandbox.onnx_builder("doubled", ARM_YAML, factor=2.5)
    pinned = SPLIT.replace("arms: [", "arms: [{model: doubled, version: 1, weight: 5}, ")
    router(sandbox, pinned)
    outcomes = sandbox.build()
    assert [outcomes[name].status for name in ("doubled", "live")] == ["new", "config"]
    assert sandbox.repository.versions("live") == [1]
    assert 'key: "arm.doubled:1", value: { string_value: "5" }' in sandbox.config("live")
    assert "specific { versions: [ 1, 2 ] }" in sandbox.config("doubled")
    assert needed(sandbox.repository) == {"doubled": {1: ("live",)}}
    with pytest.raises(RepositoryError, match="live"):
        moves.retire(sandbox.repository, "doubled", 1)
    assert sandbox.cli("verify").exit_code == 0  # an answer of any arm is right

    # Without the pin, version 1 stays served until servers that poll have loaded the router again.
    router(sandbox)
    assert sandbox.build()["live"].status == "config"
    assert needed(sandbox.repository) == {}
    assert list(sandbox.repository.ledger().state("doubled").released) == [1]
    assert "specific { versions: [ 1, 2 ] }" in sandbox.config("doubled")
