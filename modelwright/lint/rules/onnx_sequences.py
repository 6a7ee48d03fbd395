"""MW611, MW613, MW614: what the server adds to requests of an ONNX model, and what a warm-up then lacks.

The rules are those of onnxruntime_backend (`src/onnxruntime.cc`). No server of this project's tests has that library:
the local server's backend follows it, rule by rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelwright.lint.completion import plain_dims
from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.rules.onnx import controls
from modelwright.lint.rules.warmup import samples_that_run
from modelwright.lint.view import ConfigView
from modelwright.onnx.signature import Signature, Value, element_type
from modelwright.triton.dtypes import BY_ONNX
from modelwright.triton.model_config_pb2 import data_type_name

_ONNX = "onnxruntime"
_FIELD = "sequence_batching"
_START = "control [ { kind: CONTROL_SEQUENCE_START, fp32_false_true: [ 0, 1 ] } ]"


@rule(
    "MW611",
    "control tensor does not fit the file",
    Severity.ERROR,
    why="The sequence batcher sends each control to an input of shape [1] (without the batch) and of the type of the "
    "control's values.",
    fix="Add such an input to the model, or remove the control.",
    example=Example(f'sequence_batching {{ control_input [ {{ name: "START", {_START} }} ] }}', "", base=_ONNX),
)
def control_tensors(view: ConfigView) -> Iterator[Found]:
    for number, scan in view.onnx.items():
        known = {value.name: value for value in scan.inputs}
        batched = view.completed(scan).max_batch_size > 0
        for name, index, control in controls(view.message):
            path = (_FIELD, "control_input", index)
            if name not in known:
                yield view.found(f"{view.file_of(number)} has no input '{name}'", *path)
                continue
            dims = plain_dims(known[name])[int(batched) :]
            if dims != [1]:
                yield view.found(f"'{name}' has dims {dims} in {view.file_of(number)}; expected [1]", *path)
            wanted, actual = _control_type(control), _type(known[name])
            if wanted and wanted != actual:
                yield view.found(f"'{name}' is {actual} in {view.file_of(number)}; expected {wanted}", *path)


def _control_type(control: Any) -> str:
    for field, name in (("int32", "TYPE_INT32"), ("fp32", "TYPE_FP32"), ("bool", "TYPE_BOOL")):
        if len(getattr(control, f"{field}_false_true")):
            return name
    return data_type_name(control.data_type) if control.data_type else ""


def _type(value: Value) -> str:
    return BY_ONNX[value.elem_type].config if value.elem_type in BY_ONNX else element_type(value.elem_type)


@rule(
    "MW613",
    "control of an unknown kind",
    Severity.ERROR,
    why="The onnxruntime backend reads the kinds of controls by their names, and does not load a model with a number "
    "that stands for none. Other backends load it, and the control is never sent.",
    fix="Write the kind's name, such as CONTROL_SEQUENCE_START.",
    example=Example(
        'sequence_batching { control_input [ { name: "x", control [ { kind: 9 } ] } ] }',
        "",
        base=_ONNX,
    ),
)
def unknown_kind(view: ConfigView) -> Iterator[Found]:
    if view.message.backend == _ONNX:
        for name, index, control in controls(view.message):
            if control.kind not in control.Kind.values():
                yield view.found(f"'{name}': no control has the kind {control.kind}", _FIELD, "control_input", index)


@rule(
    "MW614",
    "warm-up without an input that the file has",
    Severity.ERROR,
    why="A warm-up goes to the model as it is: the sequence batcher adds no controls and no states to it. With the "
    "onnxruntime backend each input of the file must be there, and nothing else; an unknown one was seen to end the "
    "server with a segmentation fault.",
    fix="Give the warm-up an entry for each control and state, with the model's own dims less the batch, and remove "
    "inputs that the file does not have.",
    example=Example(
        'model_warmup [ { name: "one", batch_size: 1, inputs { key: "x" value { data_type: TYPE_FP32, dims: [ 2 ], '
        'zero_data: true } }, inputs { key: "z" value { data_type: TYPE_FP32, dims: [ 2 ], zero_data: true } } } ]',
        'model_warmup [ { name: "one", batch_size: 1, inputs { key: "x" value { data_type: TYPE_FP32, dims: [ 2 ], '
        "zero_data: true } } } ]",
        base=_ONNX,
    ),
)
def warmup_inputs(view: ConfigView) -> Iterator[Found]:
    configured = {tensor.name for tensor in view.message.input}  # MW424 looks at these
    for number, scan in view.onnx.items():
        added = {value.name: value for value in scan.inputs if value.name not in configured | _computed(view.message)}
        known = configured | added.keys() | {value.name for value in scan.overridable}
        for index, sample in samples_that_run(view):
            for name in sorted(added.keys() - set(sample.inputs)):
                message = f"the warm-up '{sample.name}' lacks '{name}', which {view.file_of(number)} needs"
                yield view.found(message, "model_warmup", index)
            for name in sorted(sample.inputs):
                path = ("model_warmup", index, "inputs", name)
                if name not in known:
                    yield view.found(f"{view.file_of(number)} has no input '{name}'", *path)
                elif name in added and not _fits(sample.inputs[name], added[name], view, scan):
                    expected = f"{_type(added[name])} {_plain(added[name], view, scan)}"
                    yield view.found(f"input '{name}' does not fit: expected {expected}", *path)


def _computed(config: Any) -> set[str]:
    """Inputs that the backend makes itself, for warm-ups too."""
    return {name for entry in config.batch_input for name in entry.target_name}


def _plain(value: Value, view: ConfigView, scan: Signature) -> list[int]:
    return plain_dims(value)[int(view.completed(scan).max_batch_size > 0) :]


def _fits(entry: Any, value: Value, view: ConfigView, scan: Signature) -> bool:
    dims = _plain(value, view, scan)
    same = len(entry.dims) == len(dims) and all(
        wanted in (-1, given) for given, wanted in zip(entry.dims, dims, strict=True)
    )
    return same and data_type_name(entry.data_type) == _type(value)
