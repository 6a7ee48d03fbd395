"""An ensemble that runs ensembles names what these run."""

from __future__ import annotations

import pytest

from modelwright.config.nested import flat_steps
from tests.conftest import ENSEMBLE_YAML, ONNX_YAML, Sandbox

TENSORS = "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: FP32, shape: [2]}]\n"
PLAIN = ONNX_YAML.replace("evaluate: data:evaluate\ngates: {accuracy: {min: 0.9}}\n", "") + TENSORS
OUTER_YAML = ENSEMBLE_YAML.replace("model_name: plus_one", "model_name: both").replace(
    "model_name: doubled", "model_name: first"
)


def nested(sandbox: Sandbox) -> None:
    """`outer` runs `first` and then `both`, which runs `doubled` and `plus_one`; `live` is an alias of `both`."""
    for model in ("first", "doubled", "plus_one"):
        sandbox.onnx_builder(model, yaml=PLAIN)
    sandbox.ensemble_builder("both")
    sandbox.ensemble_builder("outer", yaml=OUTER_YAML)
    sandbox.write("live", model_yaml="source: {kind: alias, of: both, serves: both}\n")


def wiring(sandbox: Sandbox, model: str) -> list[str]:
    steps = flat_steps(sandbox.builders[model], sandbox.builders)
    return [f"{step.model_name}: {step.input_map['x']} → {step.output_map['y']}" for step in steps]


def test_the_steps_of_an_inner_ensemble_are_linked_to_the_outer_ones(sandbox: Sandbox) -> None:
    nested(sandbox)
    assert wiring(sandbox, "outer") == [
        "first: x → middle",
        "doubled: middle → both_1_middle",
        "plus_one: both_1_middle → y",
    ]
    assert wiring(sandbox, "live") == ["doubled: x → both_0_middle", "plus_one: both_0_middle → y"]
    assert wiring(sandbox, "both") == ["doubled: x → middle", "plus_one: middle → y"]


def test_what_leads_to_outputs_that_are_not_asked_for_is_left_out(sandbox: Sandbox) -> None:
    nested(sandbox)
    aside = "    - {model_name: first, input_map: {x: x}, output_map: {y: aside}}\n"
    yaml = ENSEMBLE_YAML.replace("inputs:", aside + "inputs:").replace(
        "outputs: [", "outputs: [{name: aside, dtype: FP32, shape: [2]}, "
    )
    sandbox.ensemble_builder("both", yaml=yaml)
    assert len(flat_steps(sandbox.builders["both"], sandbox.builders)) == 3
    assert wiring(sandbox, "outer") == [
        "first: x → middle",
        "doubled: middle → both_1_middle",
        "plus_one: both_1_middle → y",
    ]


@pytest.mark.server
def test_an_outer_ensemble_moves_by_itself(sandbox: Sandbox) -> None:
    nested(sandbox)
    for version, factor in enumerate((2.0, 3.0), 1):
        sandbox.onnx_builder("doubled", yaml=PLAIN, factor=factor)
        outcomes = sandbox.build()
        assert {outcomes[name].version for name in ("outer", "both", "live")} == {version}, outcomes
    for name in ("outer", "live"):
        assert 'model_name: "doubled"\n    model_version: 2' in sandbox.config(name)
        assert "both" not in sandbox.config(name).replace("both_", "")
    assert sandbox.cli("rollback", "both").exit_code == 0
    results = [line.split() for line in sandbox.cli("verify", "outer", "live", "both").output.splitlines()[1:]]
    found = {(model, version): verdict for model, version, _, verdict, *_ in results}
    assert found == {
        ("outer", "1"): "superseded", ("outer", "2"): "ok", ("live", "1"): "superseded", ("live", "2"): "ok", ("both", "1"): "ok",
    }  # fmt: skip
