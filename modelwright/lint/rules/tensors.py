"""MW2xx: inputs and outputs, their shapes, labels, and the tensors that a batch adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from modelwright.lint.completion import INPUT, MAX_BATCH_SIZE, OUTPUT
from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.view import ConfigView
from modelwright.triton.shapes import element_counts

_TENSORRT = "tensorrt_plan"
_X = 'input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ]'


def tensors(view: ConfigView) -> list[tuple[str, int, Any, str]]:
    """(side, index, tensor, its name in messages), inputs first."""
    if "tensors" not in view.kept:
        view.kept["tensors"] = list(_tensors(view))
    found: list[tuple[str, int, Any, str]] = view.kept["tensors"]
    return found


def _tensors(view: ConfigView) -> Iterator[tuple[str, int, Any, str]]:
    for side in ("input", "output"):
        for index, tensor in enumerate(getattr(view.message, side)):
            yield side, index, tensor, f"{side} '{tensor.name}'" if tensor.name else f"{side} {index}"


def _later(view: ConfigView, side: str, tensor: Any) -> bool:
    """Whether a tensor has no dims yet, and auto-completion may write them."""
    return not tensor.dims and view.may_complete(side)


@rule(
    "MW201",
    "tensor without a name",
    Severity.ERROR,
    why="Requests refer to tensors by name.",
    fix="Write the name that the tensor has in the model.",
    example=Example("input [ { data_type: TYPE_FP32, dims: [ 2 ] } ]", f"{_X} }} ]"),
)
def no_name(view: ConfigView) -> Iterator[Found]:
    for side, index, tensor, _ in tensors(view):
        if not tensor.name:
            yield view.found(f"{side} {index} has no name", side, index)


@rule(
    "MW202",
    "tensor without a data type",
    Severity.ERROR,
    why="The server refuses a tensor without data_type, or of TYPE_INVALID.",
    fix="Write the model's type, such as data_type: TYPE_FP32.",
    example=Example('input [ { name: "x", dims: [ 2 ] } ]', f"{_X} }} ]"),
)
def no_data_type(view: ConfigView) -> Iterator[Found]:
    for side, index, tensor, name in tensors(view):
        if tensor.data_type == 0 and not view.may_complete(side):
            yield view.found(f"{name} has no data_type", side, index)


@rule(
    "MW203",
    "tensor without dims",
    Severity.ERROR,
    why="The protocol has no tensors without dimensions; write a scalar as dims: [ 1 ] with a reshape.",
    fix="Write dims, without the batch dimension unless max_batch_size is 0.",
    example=Example('input [ { name: "x", data_type: TYPE_FP32 } ]', f"{_X} }} ]"),
)
def no_dims(view: ConfigView) -> Iterator[Found]:
    for side, index, tensor, name in tensors(view):
        if not tensor.dims and not view.may_complete(side):
            yield view.found(f"{name} has no dims", side, index)


@rule(
    "MW204",
    "invalid dimension",
    Severity.ERROR,
    why="In dims and reshape, a dimension is a number from 1, or -1 for a dynamic one.",
    fix="Write the size, or -1 if it varies.",
    example=Example(
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ 0 ] } ]',
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ -1 ] } ]',
    ),
)
def impossible_dim(view: ConfigView) -> Iterator[Found]:
    for side, index, tensor, name in tensors(view):
        for where, dims in (("dims", tensor.dims), ("reshape", tensor.reshape.shape)):
            for place, dim in enumerate(dims):
                if dim < 1 and dim != -1:
                    path = (side, index, "dims", place) if where == "dims" else (side, index, "reshape", "shape", place)
                    yield view.found(f"{name}: {dim} in {where}", *path)


@rule(
    "MW205",
    "empty reshape without batching",
    Severity.ERROR,
    why="reshape { shape: [ ] } leaves only the batch dimension, which a model with max_batch_size 0 does not have.",
    fix="Remove the reshape, or set max_batch_size.",
    example=Example(
        'max_batch_size: 0\ninput [ { name: "x", data_type: TYPE_FP32, dims: [ 1 ], reshape { shape: [ ] } } ]',
        'max_batch_size: 8\ninput [ { name: "x", data_type: TYPE_FP32, dims: [ 1 ], reshape { shape: [ ] } } ]',
    ),
)
def empty_reshape(view: ConfigView) -> Iterator[Found]:
    for side, index, tensor, name in tensors(view):
        empty = tensor.HasField("reshape") and not tensor.reshape.shape and view.message.max_batch_size == 0
        if empty and not view.may_complete(MAX_BATCH_SIZE):
            yield view.found(f"{name}: the reshape is empty and max_batch_size is 0", side, index, "reshape")


@rule(
    "MW206",
    "reshape with another number of elements",
    Severity.ERROR,
    why="A reshape keeps the number of elements, also before, between and after dynamic dimensions: [2, 4, -1, 6] can "
    "become [8, -1, 1, 6].",
    fix="Make the numbers of elements equal.",
    example=Example(f"{_X}, reshape {{ shape: [ 3 ] }} }} ]", f"{_X}, reshape {{ shape: [ 2, 1 ] }} }} ]"),
)
def uneven_reshape(view: ConfigView) -> Iterator[Found]:
    for side, index, tensor, name in tensors(view):
        dims, shape = list(tensor.dims), list(tensor.reshape.shape)
        if not tensor.HasField("reshape") or any(dim < 1 and dim != -1 for dim in dims + shape):
            continue
        if _later(view, side, tensor):
            continue
        if element_counts(dims) != element_counts(shape):
            yield view.found(f"{name}: dims {dims} cannot become {shape}", side, index, "reshape")


@rule(
    "MW207",
    "image format without three dims",
    Severity.ERROR,
    why="FORMAT_NHWC and FORMAT_NCHW need three dims, without the batch dimension.",
    fix="Write three dims, or remove `format`: few backends use it.",
    example=Example(f"{_X}, format: FORMAT_NCHW }} ]", f"{_X} }} ]"),
)
def image_format(view: ConfigView) -> Iterator[Found]:
    for index, tensor in enumerate(view.message.input):
        if tensor.format and len(tensor.dims) != 3 and not _later(view, "input", tensor):
            name = tensor.Format.Name(tensor.format)
            yield view.found(f"input '{tensor.name}': {name} with {len(tensor.dims)} dims", "input", index, "format")


@rule(
    "MW208",
    "shape tensor of a model that is not TensorRT",
    Severity.ERROR,
    why="Only TensorRT models have shape tensors: inputs whose values are shapes.",
    fix="Remove is_shape_tensor.",
    example=Example(f"{_X}, is_shape_tensor: true }} ]", f"{_X} }} ]"),
)
def shape_tensor(view: ConfigView) -> Iterator[Found]:
    if view.message.platform != _TENSORRT:
        for side, index, tensor, name in tensors(view):
            if tensor.is_shape_tensor:
                yield view.found(f"{name} is a shape tensor", side, index, "is_shape_tensor")


@rule(
    "MW209",
    "invalid non-linear format",
    Severity.ERROR,
    why="Only TensorRT models have vectorised formats such as CHW32, and they need three dims.",
    fix="Remove is_non_linear_format_io.",
    example=Example(f"{_X}, is_non_linear_format_io: true }} ]", f"{_X} }} ]"),
)
def non_linear_format(view: ConfigView) -> Iterator[Found]:
    for side, index, tensor, name in tensors(view):
        fits = view.message.platform == _TENSORRT and (len(tensor.dims) == 3 or _later(view, side, tensor))
        if tensor.is_non_linear_format_io and not fits:
            yield view.found(f"{name} has a non-linear format", side, index, "is_non_linear_format_io")


@rule(
    "MW210",
    "label file missing",
    Severity.ERROR,
    why="The server reads label_filename, relative to the model's folder, when the model loads.",
    fix="Put the file beside config.pbtxt, with one class name per line.",
    example=Example(
        'output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ], label_filename: "labels.txt" } ]',
        'output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ], label_filename: "labels.txt" } ]',
        fixed_files={"labels.txt": "yes\nno\n"},
    ),
)
def label_file(view: ConfigView) -> Iterator[Found]:
    for index, tensor in enumerate(view.message.output):
        name = tensor.label_filename
        if name and not view.model.locate(name).is_file():
            yield view.found(
                f"output '{tensor.name}': the file '{name}' does not exist", "output", index, "label_filename"
            )


@rule(
    "MW214",
    "label file outside the model",
    Severity.WARNING,
    why="Servers up to at least 24.10 read such a file. Newer ones refuse the model, so that a config cannot read any "
    "file of the machine.",
    fix="Put the file into the model's folder, beside config.pbtxt.",
    example=Example(
        'output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ], label_filename: "../labels.txt" } ]',
        'output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ], label_filename: "labels.txt" } ]',
        files={"labels.txt": "yes\nno\n", "/labels.txt": "yes\nno\n"},
    ),
)
def label_file_outside(view: ConfigView) -> Iterator[Found]:
    for index, tensor in enumerate(view.message.output):
        name = tensor.label_filename
        if name and ".." in PurePosixPath(name).parts and view.model.locate(name).is_file():
            yield view.found(
                f"output '{tensor.name}': '{name}' is outside the model's folder", "output", index, "label_filename"
            )


@rule(
    "MW211",
    "invalid batch_input",
    Severity.ERROR,
    why="A batch_input needs one source_input, which is an input of the model, and is TYPE_INT32 or TYPE_FP32.",
    fix="Write the name of one declared input as source_input.",
    example=Example(
        'batch_input [ { kind: BATCH_ELEMENT_COUNT, target_name: "n", data_type: TYPE_FP32, source_input: "z" } ]',
        'batch_input [ { kind: BATCH_ELEMENT_COUNT, target_name: "n", data_type: TYPE_FP32, source_input: "x" } ]',
    ),
)
def batch_input(view: ConfigView) -> Iterator[Found]:
    inputs = {tensor.name for tensor in view.message.input}
    for index, entry in enumerate(view.message.batch_input):
        path = ("batch_input", index)
        if entry.kind not in entry.Kind.values():
            yield view.found(f"unknown kind {entry.kind}", *path, "kind")
        if len(entry.source_input) != 1:
            yield view.found(f"it has {len(entry.source_input)} source_input, and needs exactly one", *path)
        if entry.data_type not in (8, 11):  # TYPE_INT32, TYPE_FP32
            yield view.found("data_type must be TYPE_INT32 or TYPE_FP32", *path, "data_type")
        for name in entry.source_input:
            if name not in inputs and not view.may_complete(INPUT):
                yield view.found(f"source_input '{name}' is not an input of the model", *path, "source_input")


@rule(
    "MW212",
    "invalid batch_output",
    Severity.ERROR,
    why="A batch_output needs one source_input, which is an input of the model, and target_names that are outputs, "
    "each named once. Without a target_name the server crashes with a segmentation fault (seen with 24.10).",
    fix="Write declared outputs as target_name, and one declared input as source_input.",
    example=Example(
        'batch_output [ { target_name: "z", kind: BATCH_SCATTER_WITH_INPUT_SHAPE, source_input: "x" } ]',
        'batch_output [ { target_name: "y", kind: BATCH_SCATTER_WITH_INPUT_SHAPE, source_input: "x" } ]',
    ),
)
def batch_output(view: ConfigView) -> Iterator[Found]:
    inputs = {tensor.name for tensor in view.message.input}
    outputs = {tensor.name for tensor in view.message.output}
    for index, entry in enumerate(view.message.batch_output):
        path = ("batch_output", index)
        if entry.kind not in entry.Kind.values():
            yield view.found(f"unknown kind {entry.kind}", *path, "kind")
        if len(entry.source_input) != 1:
            yield view.found(f"it has {len(entry.source_input)} source_input, and needs exactly one", *path)
        for name in entry.source_input:
            if name not in inputs and not view.may_complete(INPUT):
                yield view.found(f"source_input '{name}' is not an input of the model", *path, "source_input")
        names = list(entry.target_name)
        if not names:
            yield view.found("no target_name is given: that crashes the server", *path)
        for place, name in enumerate(names):
            if name not in outputs and not view.may_complete(OUTPUT):
                yield view.found(f"target_name '{name}' is not an output of the model", *path, "target_name", place)
            elif name in names[:place]:
                yield view.found(f"target_name '{name}' is given twice", *path, "target_name", place)


@rule(
    "MW213",
    "two tensors with one name",
    Severity.WARNING,
    why="Of two inputs or two outputs with one name, the server keeps the first and silently ignores the second.",
    fix="Remove or rename one.",
    example=Example(
        f'{_X} }}, {{ name: "x", data_type: TYPE_FP32, dims: [ 4 ] }} ]',
        f'{_X} }}, {{ name: "z", data_type: TYPE_FP32, dims: [ 4 ] }} ]',
    ),
)
def repeated_name(view: ConfigView) -> Iterator[Found]:
    seen = set()
    for side, index, tensor, name in tensors(view):
        if (side, tensor.name) in seen:
            yield view.found(f"{name} is declared twice", side, index)
        seen.add((side, tensor.name))
