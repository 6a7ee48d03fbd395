"""spec.serving → ModelConfig → config.pbtxt, and back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from modelwright.config.model_config import ConfigTensor, ConfigTensors, config_of, tensors_of
from modelwright.config.render import parse, render
from modelwright.errors import ConfigError, SpecError
from modelwright.facts.made import Made, OnnxSignature, OnnxTensor
from modelwright.project.reader import read_builder
from modelwright.project.spec import Builder, parse_spec
from modelwright.triton.model_config_pb2 import schema
from modelwright.variants.registry import LOOKUPS
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
            "priority_queue_policy": {1: {"timeout_action": "DELAY", "max_queue_size": 5}},
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

TENSORS = ConfigTensors((ConfigTensor("x", "FP32", (2,)),), (ConfigTensor("y", "BYTES", (-1,), "labels.txt"),))


def builder(serving: dict[str, Any], **fields: Any) -> Builder:
    data = {
        "name": "m",
        "source": {"kind": "torch", "entry": "a:b"},
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [2]}],
        "outputs": [{"name": "y", "dtype": "STRING", "shape": ["n"]}],
        "samples": "a:b",
        "serving": serving,
    }
    return Builder(Path("/none"), "builders/m/model.yaml", parse_spec(data | fields, LOOKUPS))


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
        "  max_queue_delay_microseconds: 200  # how long a request may wait for others to join it\n"
        "}\n"
    )


def test_the_schema_is_tritonclients() -> None:
    """`make docs` writes it where a later tritonclient knows more."""
    from tritonclient.grpc import model_config_pb2

    assert schema().DESCRIPTOR.serialized_pb == model_config_pb2.DESCRIPTOR.serialized_pb


def made(*dims: int | str, dtype: str = "FP32") -> Made:
    inputs = (OnnxTensor(name="x", dtype=dtype, dims=dims),)
    outputs = (OnnxTensor(name="y", dtype="BYTES", dims=("batch", -1)),)
    return Made(signature=OnnxSignature(inputs=inputs, outputs=outputs, opset=20, ir_version=9))


BATCHED = {"max_batch_size": 8}


def test_tensors_are_derived_from_the_artifact_without_the_batch() -> None:
    tensors = tensors_of(builder(BATCHED), made("batch", 2))
    assert tensors.inputs == (ConfigTensor("x", "FP32", (2,)),)


def test_an_input_may_be_narrowed_in_the_model_yaml() -> None:
    assert tensors_of(builder(BATCHED), made("batch", -1)).inputs[0].dims == (2,)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (made("batch", 3), r"inputs: 'x' has shape \[3\] in the model, \[2\] in model.yaml"),
        (made("batch", 2, dtype="FP16"), "inputs: 'x' is FP16 in the model, FP32 in model.yaml"),
        (made(4, 2), r"inputs: 'x' has the fixed shape \[4, 2\], and serving.max_batch_size is 8"),
    ],
    ids=["shape", "dtype", "batch"],
)
def test_contradictions_between_artifact_and_model_yaml(facts: Made, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tensors_of(builder(BATCHED), facts)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("dynamic_batching: {priority_queue_policy: {1: {max_queue_size: 5}}}", "max_queue_size", 5),
        ("dynamic_batching: {default_queue_policy: {max_queue_size: 4294967295}}", "max_queue_size", 2**32 - 1),
        ("dynamic_batching: {max_queue_delay_microseconds: 18446744073709551615}", "microseconds", 2**64 - 1),
        ("version_policy: {specific: {versions: [-9223372036854775808]}}", "versions", "[ -9223372036854775808 ]"),
        ("sequence_batching: {direct: {minimum_slot_utilization: .5}}", "minimum_slot_utilization", 0.5),
        ("sequence_batching: {direct: {minimum_slot_utilization: 0.1}}", "minimum_slot_utilization", 0.1),
        ("sequence_batching: {direct: {minimum_slot_utilization: 1e-3}}", "minimum_slot_utilization", 0.001),
        (
            "model_metrics: {metric_control: [{histogram_options: {buckets: [.5, 2, .inf]}}]}",
            "buckets",
            "[ 0.5, 2.0, inf ]",
        ),
        ("sequence_batching: {iterative_sequence: yes}", "iterative_sequence", "true"),
        ("response_cache: {enable: true}", "enable", "true"),
        ("parameters: {é: {string_value: 日本}}", 'key: "é", value', '{ string_value: "日本" }'),
        ("parameters: {5: {string_value: five}}", 'key: "5", value', '{ string_value: "five" }'),
    ],
)
def test_what_yaml_calls_it_arrives(tmp_path: Path, text: str, field: str, value: object) -> None:
    rendered = render(config_of(from_yaml(tmp_path, f"{{{text}}}"), TENSORS), "m", [ROOT / "templates"])
    assert f"{field}: {value}" in rendered


def from_yaml(folder: Path, serving: str) -> Builder:
    (folder / "model.yaml").write_text(
        "name: m\nsource: {kind: torch, entry: a:b}\nsamples: a:b\n"
        "inputs: [{name: x, dtype: FP32, shape: [2]}]\noutputs: [{name: y, dtype: STRING, shape: [n]}]\n"
        f"serving: {serving}\n"
    )
    return read_builder(folder, "builders/m/model.yaml", LOOKUPS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{parameters: {yes: {string_value: a}}}", "serving: the key True is neither a word nor a whole number: quote"),
        ("{parameters: {1.5: {string_value: a}}}", "serving: the key 1.5 is neither"),
    ],
)
def test_keys_that_yaml_reads_as_something_else(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        from_yaml(tmp_path, text)


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        ({"dynamic_batching": {"max_queue_delay": 1}}, r"serving\.dynamic_batching\.max_queue_delay: unknown field"),
        ({"maxBatchSize": 8}, r"serving\.maxBatchSize: unknown field\n  hint: did you mean 'max_batch_size'\?"),
        ({"instance_group": {"count": 1}}, r"serving\.instance_group: expected a list, got a mapping"),
        ({"instance_group": [None]}, r"serving\.instance_group\[0\]: expected fields, got nothing"),
        ({"instance_group": [{"count": 2.5}]}, r"instance_group\[0\]\.count: expected a whole number, got 2\.5"),
        ({"instance_group": [{"count": True}]}, r"instance_group\[0\]\.count: expected a whole number, got True"),
        ({"instance_group": [{"count": 2**31}]}, r"count: 2147483648 is out of range: -2147483648 to 2147483647"),
        (
            {"instance_group": [{"kind": "KIND_CPUS"}]},
            r"kind: 'KIND_CPUS' is not a value of Kind\n  hint: did you mean 'KIND_CPU'\?",
        ),
        ({"instance_group": [{"kind": 7}]}, r"kind: 7 .*Kind\n  hint: known: KIND_AUTO"),
        (
            {"parameters": {"a": {"string_value": 5}}},
            r'a\.string_value: expected a string, got 5\n  hint: quote it: "5"',
        ),
        ({"parameters": ["a"]}, r"serving\.parameters: expected a mapping, got a list"),
        ({"response_cache": {"enable": "yes"}}, r"response_cache\.enable: expected true or false, got 'yes'"),
        ({"dynamic_batching": {"priority_queue_policy": {"x": {}}}}, r"policy\.x: expected a whole number, got 'x'"),
        ({"dynamic_batching": {"priority_levels": -1}}, r"priority_levels: -1 is out of range: 0 to"),
        ({"sequence_batching": {"direct": {"minimum_slot_utilization": "half"}}}, r"expected a number, got 'half'"),
        (
            {"dynamic_batching": {}, "sequence_batching": {}},
            r"serving: dynamic_batching and sequence_batching exclude each other",
        ),
        ({"version_policy": {"all": {}, "latest": {}}}, r"serving\.version_policy: latest and all exclude each other"),
        ({"ensemble_scheduling": {}}, r"serving\.ensemble_scheduling: only an ensemble"),
        ({"input": [{"name": "z"}]}, r"serving\.input: the model has no input 'z'"),
        ({"input": [{"name": "x"}, {"name": "x"}]}, r"serving\.input: 'x' is given twice"),
        (
            {"input": [{"name": "x", "data_type": "TYPE_INT8"}]},
            r"serving\.input: 'x': data_type: expected TYPE_FP32, got TYPE_INT8",
        ),
        ({"input": [{"name": "x", "dims": [3]}]}, r"serving\.input: 'x': dims: expected \[2\], got \[3\]"),
        (
            {"output": [{"name": "y", "label_filename": "other.txt"}]},
            r"serving\.output: 'y': label_filename: expected 'labels\.txt', got 'other\.txt'",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_serving_cannot_say(serving: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(builder(serving), TENSORS)


STEP = {"model_name": "a", "input_map": {"x": "x"}, "output_map": {"y": "y"}}


def ensemble(serving: dict[str, Any], **step: Any) -> Builder:
    return builder(serving, source={"kind": "ensemble", "steps": [STEP | step]})


def test_fields_of_an_ensemble_beside_its_steps() -> None:
    config = config_of(ensemble({"ensemble_scheduling": {"max_inflight_requests": 3}}, model_namespace="n"), TENSORS)
    text = render(config, "m", [ROOT / "templates"])
    assert "max_inflight_requests: 3  # " in text
    assert 'model_namespace: "n"' in text
    assert "model_version: -1  # the newest" not in text
    assert "model_version: -1  # -1: the newest that is served" in text


def test_a_namespace_that_nobody_gave_changes_no_key() -> None:
    source = ensemble({}).spec.source.model_dump(mode="json")
    assert source["steps"] == [{**STEP, "model_version": -1}]


@pytest.mark.parametrize(
    ("serving", "message"),
    [
        ({"ensemble_scheduling": {"step": []}}, "serving.ensemble_scheduling.step: it follows from source.steps"),
        ({"dynamic_batching": {}}, "serving.dynamic_batching: an ensemble does not batch"),
        ({"sequence_batching": {}}, "serving.sequence_batching: an ensemble does not batch"),
    ],
    ids=["steps", "dynamic", "sequence"],
)
def test_what_an_ensemble_cannot_say(serving: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_of(ensemble(serving), TENSORS)
