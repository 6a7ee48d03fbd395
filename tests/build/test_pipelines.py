"""Ensembles of which several versions are served side by side: `keep`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelwright import Project
from modelwright.build.workspace import open_workspace
from modelwright.steps.pipeline import stages
from tests.conftest import ENSEMBLE_YAML, ONNX_YAML, PYTHON_YAML, Sandbox

PLAIN_ONNX = ONNX_YAML.replace("evaluate: data:evaluate\ngates: {accuracy: {min: 0.9}}\n", "")
KEPT_YAML = ENSEMBLE_YAML.replace("kind: ensemble", "kind: ensemble\n  keep: 3")


def step(model: str, reads: str, writes: str) -> dict[str, Any]:
    return {"model_name": model, "input_map": {"x": reads}, "output_map": {"y": writes}}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param("a:x>m b:m>y", ["a", "b"], id="a line"),
        pytest.param("b:m>y a:x>m", ["a", "b"], id="a line in another order"),
        pytest.param("a:x>m b:m>l c:m>r d:l>y", ["a", "bc", "d"], id="two at once"),
        pytest.param("a:x>y", ["a"], id="one"),
        pytest.param("a:x>m a:x>n b:m>y", ["aa", "b"], id="one model twice"),
    ],
)
def test_steps_that_need_nothing_of_each_other_are_one_stage(steps: str, expected: list[str]) -> None:
    parts = [part.partition(":")[::2] for part in steps.split()]
    given = [step(model, *tensors.split(">")) for model, tensors in parts]
    assert ["".join(item["model_name"] for item in stage) for stage in stages(given)] == expected


def test_a_kept_ensemble_is_a_python_model_with_a_policy(sandbox: Sandbox) -> None:
    builders = _three(sandbox)
    serving = builders["both"].spec.serving
    assert serving["version_policy"] == {"latest": {"num_versions": 3}}
    assert serving["instance_group"] == [{"kind": "KIND_CPU", "count": 4}]


def test_an_ensemble_without_keep_has_the_keys_that_it_had(sandbox: Sandbox) -> None:
    _three(sandbox, ENSEMBLE_YAML)
    steps = {item.id: item for item in open_workspace(sandbox.project).steps}
    assert steps["both", "ensemble"].config["steps"][0] == {
        "model_name": "doubled", "model_version": -1, "input_map": {"x": "x"}, "output_map": {"y": "middle"},
    }  # fmt: skip
    assert "keep" not in json.dumps(sandbox.builders["both"].spec.source.model_dump())


BAD = {
    "no number": ("keep: 3", "keep: 0", "source.keep: "),
    "a policy of its own": ("max_batch_size: 8}", "max_batch_size: 8, version_policy: {all: {}}}", "serving.version_policy: keep says which versions are served: remove it, or `keep`"),
    "sequences": ("max_batch_size: 8}", "max_batch_size: 8, sequence_batching: {}}", "serving.sequence_batching: versions that are kept take no sequences"),
    "a warm-up": ("max_batch_size: 8}", "max_batch_size: 8, model_warmup: []}", "serving.model_warmup: the models that it calls need not be loaded yet when it warms up"),
    "pins by hand": ("model_name: doubled,", "model_name: doubled, model_version: 1,", "source.steps[0].model_version: with keep, each version has its own: remove it"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_kept(sandbox: Sandbox, case: str) -> None:
    old, new, message = BAD[case]
    assert old in KEPT_YAML
    _three(sandbox, KEPT_YAML.replace(old, new))
    assert message in sandbox.error("build", "both")


@pytest.mark.parametrize(
    ("serving", "reason"),
    [
        ("model_transaction_policy: {decoupled: true}", "is decoupled, and gives any number of answers"),
        ("sequence_batching: {direct: {}}", "takes sequences"),
    ],
)
def test_models_that_a_kept_version_cannot_call(sandbox: Sandbox, serving: str, reason: str) -> None:
    _three(sandbox)
    sandbox.python_builder(yaml=PYTHON_YAML.replace("max_batch_size: 8", f"max_batch_size: 8, {serving}"))
    assert f"source.keep: plus_one {reason}, so versions cannot call it" in sandbox.error("build", "both")


def test_a_kept_version_cannot_call_an_ensemble_that_is_not_kept(sandbox: Sandbox) -> None:
    _three(sandbox, ENSEMBLE_YAML)
    step = "{model_name: both, input_map: {x: x}, output_map: {y: y}}"
    head, tail = KEPT_YAML.split("  steps:")[0], KEPT_YAML[KEPT_YAML.index("inputs: [") :]
    sandbox.ensemble_builder("outer", yaml=f"{head}  steps: [{step}]\n{tail}")
    message = "source.keep: both is an ensemble, of which one version runs its own models at a time"
    assert message in sandbox.error("build", "outer")


def _three(sandbox: Sandbox, yaml: str = KEPT_YAML) -> Any:
    tensors = "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: FP32, shape: [2]}]\n"
    sandbox.onnx_builder(yaml=ONNX_YAML + tensors)
    sandbox.python_builder()
    sandbox.ensemble_builder(yaml=yaml)
    return sandbox.builders if yaml in (KEPT_YAML, ENSEMBLE_YAML) else None


@pytest.mark.server
def test_three_kept_versions_each_answer_as_they_were_verified(sandbox: Sandbox) -> None:
    tensors = "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: FP32, shape: [2]}]\n"
    sandbox.ensemble_builder(yaml=KEPT_YAML)
    for version, factor in enumerate((2.0, 3.0, 5.0), 1):
        sandbox.onnx_builder("doubled", yaml=tensors + PLAIN_ONNX, factor=factor)
        sandbox.onnx_builder("plus_one", yaml=tensors + PLAIN_ONNX, factor=factor + 10)
        outcomes = sandbox.build("both")
        assert {outcome.version for outcome in outcomes.values()} == {version}, outcomes
    made = sandbox.manifest("both", 3).made
    assert made.composing_models == {name: sandbox.manifest(name, 3).version_digest for name in ("doubled", "plus_one")}
    assert (
        json.loads((sandbox.root / "model_repository/both/3/pipeline.json").read_text())["composing"]
        == made.composing_models
    )
    assert "versions: [ 1, 2, 3 ]" in sandbox.config("both")
    results = Project(sandbox.project).verify(["both"])
    assert {(item.version, item.verdict) for item in results} == {(1, "ok"), (2, "ok"), (3, "ok")}
