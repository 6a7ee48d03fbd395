"""The load check of the stock onnxruntime backend: a model's configuration against the model that onnxruntime loaded.

`model.py` runs it in the local server, and a build runs it on the configuration that it is about to publish. The rules
and the words are those of triton-inference-server's onnxruntime_backend (`src/onnxruntime.cc`).

    validate(config, session)  # raises LoadCheckError

`config` is a ModelConfig as JSON, as tritonserver hands it to a backend; fields that are left out have their defaults.
`session` is an onnxruntime.InferenceSession: only what it says of its tensors is asked.

This module imports nothing but the standard library: the server's environment has no Modelwright.
"""

from __future__ import annotations

import re
from typing import Any

Config = dict[str, Any]  # a ModelConfig, or a part of it, as JSON
TensorTypes = dict[str, tuple[str, list[int]]]  # {name: (data type as in a configuration, dims)}

CONFIG_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(bfloat16)": "TYPE_BF16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?)0*([0-9]+)")
_TRUE, _FALSE = ("true", "on", "1"), ("false", "off", "0")


class LoadCheckError(Exception):
    """The stock backend refuses to load this model with this configuration; the message is nearly its own."""


def parse_integer(text: str) -> int | None:
    """What C++'s std::stoi reads of a parameter: blanks, then a number, and whatever follows. None where it throws."""
    found = _NUMBER.match(text)
    if found is None or len(found[2]) > 10:
        return None
    number = int(found[1] + found[2])
    return number if -(2**31) <= number < 2**31 else None


def parse_boolean(text: str) -> bool | None:
    """A parameter as the backend reads it; None for what is no boolean."""
    return True if text.lower() in _TRUE else False if text.lower() in _FALSE else None


def describe(nodes: list[Any]) -> TensorTypes:
    """{name: (configuration type, dims)} of a model's inputs or outputs; symbolic and unknown dimensions are -1."""
    infos: TensorTypes = {}
    for node in nodes:
        kind = node.type.split("(")[0]
        if kind != "tensor":
            kinds = {"seq": "SEQUENCE", "map": "MAP", "sparse_tensor": "SPARSETENSOR", "optional": "UNKNOWN"}
            raise LoadCheckError(
                f"Unsupported ONNX Type 'ONNX_TYPE_{kinds.get(kind, 'UNKNOWN')}' for I/O '{node.name}', "
                "expected 'ONNX_TYPE_TENSOR'."
            )
        dims = [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape]
        infos[node.name] = (CONFIG_TYPES.get(node.type, "TYPE_<invalid>"), dims)
    return infos


def validate(config: Config, session: Any) -> None:
    """Check the configuration against the model, as the stock backend does when it loads an instance.

    Raises LoadCheckError.
    """
    inputs = describe(session.get_inputs())
    expected = sum(not entry.get("optional") for entry in config["input"]) + len(config.get("batch_input", []))
    for name, data_type in sequence_controls(config):
        check_control(config, name, data_type, inputs)
        expected += 1
    expected += len(config.get("sequence_batching", {}).get("state", []))
    if len(inputs) != expected:  # numbers are compared, not names
        raise refusal(config, f"configuration expects {expected} inputs, model provides {len(inputs)}")
    inputs.update(describe(session.get_overridable_initializers()))
    for entry in config["input"]:
        if entry.get("optional") and config["max_batch_size"] != 0:
            raise refusal(config, f"optional input '{entry['name']}' is not supported for models that support batching")
        check_tensor(config, entry, "input", inputs)
    outputs = describe(session.get_outputs())
    for entry in config["output"]:
        check_tensor(config, entry, "output", outputs)


def refusal(config: Config, reason: str) -> LoadCheckError:
    return LoadCheckError(f"unable to load model '{config['name']}', {reason}")


def sequence_controls(config: Config) -> list[tuple[str, str]]:
    """(tensor, configuration type) of each control that a sequence batcher adds to every request.

    A control_input without controls has none, whether the model has the tensor or not.
    """
    controls: list[tuple[str, str]] = []
    for control_input in config.get("sequence_batching", {}).get("control_input", []):
        for control in control_input.get("control", []):
            if not isinstance(control.get("kind", ""), str):  # a number that no kind has stays a number in JSON
                raise LoadCheckError("attempt to access JSON non-string as string")
            data_type = control.get("data_type", "TYPE_INVALID")
            for key, kind in (("fp32", "TYPE_FP32"), ("bool", "TYPE_BOOL"), ("int32", "TYPE_INT32")):
                if control.get(f"{key}_false_true"):
                    data_type = kind
            controls.append((control_input["name"], data_type))
    return controls


def check_control(config: Config, name: str, data_type: str, inputs: TensorTypes) -> None:
    if name not in inputs:
        raise LoadCheckError(
            f"configuration specified sequence control '{name}', but model does not provide that input"
        )
    model_type, dims = inputs[name]
    dims = dims[1:] if config["max_batch_size"] > 0 else dims
    if dims != [1]:
        raise refusal(config, f"sequence control '{name}' in model has dims {shape(dims)} but dims [1] is expected")
    if model_type != data_type:
        raise refusal(
            config,
            f"sequence control '{name}', the model expects data-type {model_type} but the model configuration "
            f"specifies data-type {data_type}",
        )


def check_tensor(config: Config, entry: Config, kind: str, tensors: TensorTypes) -> None:
    """Check one configured input or output: its name, data type and dims."""
    name = entry["name"]
    if name not in tensors:
        allowed = ", ".join(sorted(tensors))
        raise LoadCheckError(f"unexpected inference {kind} '{name}', allowed {kind}s are: {allowed}")
    model_type, model_dims = tensors[name]
    if entry["data_type"] != model_type:
        raise refusal(
            config,
            f"configuration expects datatype {entry['data_type']} for {kind} '{name}', model provides {model_type}",
        )
    if entry.get("allow_ragged_batch"):
        check_ragged(config, entry, model_dims)
    elif kind == "input" or name not in batch_output_targets(config):
        check_shape(config, name, model_dims, config_dims(entry), exact=kind == "output")


def check_ragged(config: Config, entry: Config, model_dims: list[int]) -> None:
    """A ragged input is the elements of all requests, one after the other: it has no batch dimension."""
    expects = f"configuration expects model provides input with shape [-1] for ragged input '{entry['name']}'"
    if entry.get("optional"):
        raise refusal(config, f"{expects}, which is not supported for optional input")
    if model_dims != [-1]:
        raise refusal(config, f"{expects}, model provides {shape(model_dims)}")


def batch_output_targets(config: Config) -> set[str]:
    """Outputs that the backend cuts by the inputs' shapes: their own shapes may be any."""
    return {name for entry in config.get("batch_output", []) for name in entry.get("target_name", [])}


def check_shape(config: Config, name: str, model_dims: list[int], dims: list[int], exact: bool) -> None:
    if model_dims:
        check_dims(config, name, model_dims, dims, exact)
    elif any(dim != 1 for dim in dims):
        raise refusal(
            config,
            f"scalar tensor '{name}', should only provide 1 in the model configuration when the model doesn't support "
            f"batching. Model configuration provided: {shape(dims)}.",
        )


def config_dims(entry: Config) -> list[int]:
    """The dims that the model sees: those of `reshape` where it is given."""
    dims = entry["reshape"].get("shape", []) if "reshape" in entry else entry["dims"]
    return [int(dim) for dim in dims]


def check_dims(config: Config, name: str, model_dims: list[int], dims: list[int], exact: bool) -> None:
    """Dims of an output must be the model's; those of an input may give a size to a dynamic dimension."""
    batched = config["max_batch_size"] > 0
    if batched and model_dims[0] != -1:
        raise LoadCheckError(
            f"model '{config['name']}', tensor '{name}': for the model to support batching the shape should have at "
            f"least 1 dimension and the first dimension must be -1; but shape expected by the model is "
            f"{shape(model_dims)}"
        )
    full = [-1, *dims] if batched else dims
    fits = len(model_dims) == len(full) and all(
        model == given or (model == -1 and not exact) for model, given in zip(model_dims, full, strict=True)
    )
    if not fits:
        specifies = (
            f"{len(full)} dimensions (an initial batch dimension because max_batch_size > 0 followed by the explicit "
            f"tensor shape, making complete shape {shape(full)})"
            if batched
            else f"{len(full)} dimensions (shape {shape(full)})"
        )
        raise LoadCheckError(
            f"model '{config['name']}', tensor '{name}': the model expects {len(model_dims)} dimensions (shape "
            f"{shape(model_dims)}) but the model configuration specifies {specifies}"
        )


def shape(dims: list[int]) -> str:
    return "[" + ",".join(str(dim) for dim in dims) + "]"


def validate_warmup(config: Config, session: Any) -> None:
    """Check that each warm-up gives the model's inputs, for a model that is not run here.

    The stock backend binds what a warm-up gives and runs the model: what the sequence batcher and the states add to
    requests is not there. Raises LoadCheckError.
    """
    needed = {node.name for node in session.get_inputs()}
    needed -= {name for entry in config.get("batch_input", []) for name in entry.get("target_name", [])}
    known = needed | {node.name for node in session.get_overridable_initializers()}
    for sample in config.get("model_warmup", []):
        given = set(sample.get("inputs", {}))
        if sample.get("batch_size") and (needed - given or given - known):
            missing = [f"Missing Input: {name}" for name in sorted(needed - given)]
            unknown = [
                f"Failed to retrieve the ONNX input tensor info from '{name}'." for name in sorted(given - known)
            ]
            raise LoadCheckError(f"failed to run warmup sample '{sample.get('name', '')}': {(missing + unknown)[0]}")
