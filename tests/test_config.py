"""spec.serving → ModelConfig → config.pbtxt, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelwright.config import Tensor, Tensors, config_of, tensors_of
from modelwright.errors import ConfigError
from modelwright.modelconfig import schema
from modelwright.render import parse, render
from modelwright.spec import Builder, ModelSpec
from tests.conftest import ROOT

SERVING: dict[str, Any] = {
    "nothing": {},
    "dynamic batching": {
        "max_batch_size": 64,
        "dynamic_batching": {
            "preferred_batch_size": [4, 8],
            "max_queue_delay_microseconds": 200,
            "priority_levels": 2,
            "default_priority_level": 1,
            "priority_queue_policy": {"1": {"timeout_action": "DELAY", "max_queue_size": 5}},
        },
    },
    "sequences": {
        "max_batch_size": 4,
        "sequence_batching": {
            "direct": {"max_queue_delay_microseconds": 5},
            "max_sequence_idle_microseconds": 5000000,
            "control_input": [
                {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}]}
            ],
        },
    },
    "instances": {"instance_group": [{"count": 2, "kind": "KIND_CPU"}, {"kind": "KIND_GPU", "gpus": [0, 1]}]},
    "versions": {"version_policy": {"specific": {"versions": [1, 9007199254740993]}}},
    "parameters": {"parameters": {"a": {"string_value": 'with "quotes"\n and lines'}, "b": {"string_value": ""}}},
    "warm-up": {
        "model_warmup": [
            {"name": "w", "batch_size": 1, "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [2], "zero_data": True}}}
        ]
    },
    "optimisation": {"optimization": {"graph": {"level": -1}, "cuda": {"graphs": True}}},
    "cache and transactions": {"response_cache": {"enable": True}, "model_transaction_policy": {"decoupled": True}},
    "tensor options": {
        "input": [{"name": "x", "reshape": {"shape": [1, 2]}, "optional": True, "is_shape_tensor": False}],
        "output": [{"name": "y", "reshape": {"shape": []}}],
    },
    "an explicit default": {"max_batch_size": 0},
}

TENSORS = Tensors((Tensor("x", "FP32", (2,)),), (Tensor("y", "BYTES", (-1,), "labels.txt"),))


def builder(serving: dict[str, Any], **fields: Any) -> Builder:
    data = {
        "name": "m",
        "source": {"kind": "torch", "entry": "a:b"},
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [2]}],
        "outputs": [{"name": "y", "dtype": "STRING", "shape": ["n"]}],
        "samples": "a:b",
        "serving": serving,
    }
    return Builder(Path("/none"), "builders/m/model.yaml", ModelSpec.model_validate(data | fields))


@pytest.mark.parametrize("case", SERVING)
def test_every_field_arrives_in_the_text_and_comes_back_the_same(case: str) -> None:
    config = config_of(builder(SERVING[case]), TENSORS)
    text = render(config, "builders/m/model.yaml", [ROOT / "templates"])
    assert parse(text, "x") == config
    for field in SERVING[case]:
        if SERVING[case][field]:
            assert field in text


def test_the_text_is_laid_out_for_people() -> None:
    config = config_of(
        builder({"max_batch_size": 8, "dynamic_batching": {"max_queue_delay_microseconds": 200}}), TENSORS
    )
    assert render(config, "builders/m/model.yaml", [ROOT / "templates"]) == (
        "# Made by modelwright from builders/m/model.yaml: change that file, then run `make repo`.\n"
        "\n"
        'name: "m"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 8\n"
        "\n"
        "input [\n"
        '  { name: "x", data_type: TYPE_FP32, dims: [ 2 ] }\n'
        "]\n"
        "\n"
        "output [\n"
        '  { name: "y", data_type: TYPE_STRING, dims: [ -1 ], label_filename: "labels.txt" }\n'
        "]\n"
        "\n"
        "dynamic_batching {\n"
        "  max_queue_delay_microseconds: 200\n"
        "}\n"
    )


def test_a_template_cannot_reach_out_of_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt.j2").write_text("{{ config.__class__.__mro__ }}")
    config = config_of(builder({}), TENSORS)
    with pytest.raises(ConfigError, match="unsafe"):
        render(config, "m", [tmp_path])


def test_a_template_of_the_builder_comes_first(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt.j2").write_text("# mine\n{% for f in config %}{{ rest(f) }}{% endfor %}")
    config = config_of(builder({}), TENSORS)
    assert render(config, "m", [tmp_path, ROOT / "templates"]).startswith("# mine\n")


def test_the_schema_is_tritonclients_own() -> None:
    from tritonclient.grpc import service_pb2

    assert isinstance(service_pb2.ModelConfigResponse().config, schema().ModelConfig)


def signature(*dims: int | str, dtype: str = "FP32") -> dict[str, Any]:
    return {
        "signature": {
            "inputs": [{"name": "x", "dtype": dtype, "dims": dims}],
            "outputs": [{"name": "y", "dtype": "BYTES", "dims": ["batch", -1]}],
        }
    }


BATCHED = {"max_batch_size": 8}


def test_tensors_are_derived_from_the_artefact_without_the_batch() -> None:
    tensors = tensors_of(builder(BATCHED), signature("batch", 2))
    assert tensors.inputs == (Tensor("x", "FP32", (2,)),)


def test_an_input_may_be_narrowed_in_the_model_yaml() -> None:
    assert tensors_of(builder(BATCHED), signature("batch", -1)).inputs[0].dims == (2,)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (signature("batch", 3), r"inputs: 'x' has shape \[3\] in the model, \[2\] in model.yaml"),
        (signature("batch", 2, dtype="FP16"), "inputs: 'x' is FP16 in the model, FP32 in model.yaml"),
        (signature(4, 2), r"inputs: 'x' has the fixed shape \[4, 2\], and serving.max_batch_size is 8"),
    ],
    ids=["shape", "dtype", "batch"],
)
def test_contradictions_between_artefact_and_model_yaml(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tensors_of(builder(BATCHED), facts)


def test_an_output_cannot_be_narrowed() -> None:
    outputs = [{"name": "y", "dtype": "STRING", "shape": [5]}]
    with pytest.raises(ConfigError, match=r"outputs: 'y' has shape \[-1\] in the model, \[5\] in model.yaml"):
        tensors_of(builder(BATCHED, outputs=outputs), signature("batch", 2))
