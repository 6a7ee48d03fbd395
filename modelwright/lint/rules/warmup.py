"""MW42x: model_warmup, the requests that each instance runs before it is ready."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.fsops import TooLargeError, read_file
from modelwright.lint.completion import INPUT, MAX_BATCH_SIZE
from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.rules.sequences import data_problem
from modelwright.lint.view import ConfigView
from modelwright.triton.layout import WARMUP
from modelwright.triton.model_config_pb2 import data_type_name
from modelwright.triton.tensor_files import STRING, count_strings, size_bytes

_LARGEST_STRINGS = 100_000_000


def _warm(rest: str, head: str = 'name: "one", batch_size: 1') -> str:
    return f'model_warmup [ {{ {head}, inputs {{ key: "x" value {{ {rest} }} }} }} ]'


_GOOD = _warm("data_type: TYPE_FP32, dims: [ 2 ], zero_data: true")


def samples_that_run(view: ConfigView) -> Iterator[tuple[int, Any]]:
    """(index, warm-up) of those that run: batch_size is not 0, and some instance group is not passive."""
    groups = view.message.instance_group
    if groups and all(group.passive for group in groups):
        return
    yield from ((index, sample) for index, sample in enumerate(view.message.model_warmup) if sample.batch_size)


def _inputs(view: ConfigView) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """(path, name, input) of every warm-up that runs."""
    for index, sample in samples_that_run(view):
        for name in sorted(sample.inputs):
            yield ("model_warmup", index, "inputs", name), name, sample.inputs[name]


@rule(
    "MW421",
    "warm-up with dynamic dims",
    Severity.ERROR,
    why="A warm-up is a real request, so each of its dims needs a size. They do not include the batch dimension.",
    fix="Write the size that real requests have.",
    example=Example(_warm("data_type: TYPE_FP32, dims: [ -1 ], zero_data: true"), _GOOD),
)
def variable_dims(view: ConfigView) -> Iterator[Found]:
    for path, name, entry in _inputs(view):
        if any(dim < 0 for dim in entry.dims):
            yield view.found(f"input '{name}' has dims {list(entry.dims)}", *path, "dims")


@rule(
    "MW422",
    "warm-up without data",
    Severity.ERROR,
    why="Each input of a warm-up needs a source for its values.",
    fix="Write zero_data: true, random_data: true or input_data_file.",
    example=Example(_warm("data_type: TYPE_FP32, dims: [ 2 ]"), _GOOD),
)
def no_data(view: ConfigView) -> Iterator[Found]:
    for path, name, entry in _inputs(view):
        if entry.WhichOneof("input_data_type") is None:
            yield view.found(f"input '{name}' has no data", *path)


@rule(
    "MW423",
    "warm-up file missing or too small",
    Severity.ERROR,
    why="The server reads input_data_file from warmup/ in the model's folder. It must hold the whole tensor of one "
    "request.",
    fix="Put a file of the tensor's size there. A string is written as its length (4 bytes, little-endian) and its "
    "bytes.",
    example=Example(
        _warm('data_type: TYPE_FP32, dims: [ 2 ], input_data_file: "x"'),
        _warm('data_type: TYPE_FP32, dims: [ 2 ], input_data_file: "x"'),
        fixed_files={"warmup/x": b"\0" * 8},
    ),
)
def warmup_file(view: ConfigView) -> Iterator[Found]:
    for path, _, entry in _inputs(view):
        if entry.WhichOneof("input_data_type") == "input_data_file" and not any(dim < 0 for dim in entry.dims):
            file = f"{WARMUP}/{entry.input_data_file}"
            problem = data_problem(view, file, size_bytes(data_type_name(entry.data_type), entry.dims))
            if not problem and data_type_name(entry.data_type) == STRING:
                problem = _strings_problem(view.model.locate(file), math.prod(entry.dims))
            if problem:
                yield view.found(problem, *path, "input_data_file")


def _strings_problem(path: Path, wanted: int) -> str:
    """Why a file does not hold as many strings as its tensor has elements; '' if it does, or is too large to read."""
    try:
        found = count_strings(read_file(path, _LARGEST_STRINGS))
    except TooLargeError:
        return ""
    except OSError as error:
        return f"'{path.name}' cannot be read: {error.strerror}"
    if found is None:
        return f"'{path.name}' ends in the middle of a string"
    return f"'{path.name}' has {found} strings, the tensor needs {wanted}" if found != wanted else ""


@rule(
    "MW424",
    "warm-up that does not fit the model",
    Severity.ERROR,
    why="The server checks a warm-up like any request: it needs every input that is not optional, with the right type "
    "and a shape that fits.",
    fix="List the model's inputs with their data_type and dims.",
    example=Example(_warm("data_type: TYPE_FP32, dims: [ 3 ], zero_data: true"), _GOOD),
)
def does_not_fit(view: ConfigView) -> Iterator[Found]:
    known = {tensor.name: tensor for tensor in view.message.input}
    for index, sample in samples_that_run(view):
        required = [name for name, tensor in known.items() if not tensor.optional]
        given = known.keys() & set(sample.inputs)
        if len(given) < len(required) and not view.may_complete(INPUT):  # the server only counts them
            missing = next(name for name in required if name not in given)
            yield view.found(f"input '{missing}' is missing", "model_warmup", index)
    for path, name, entry in _inputs(view):
        if name in known:
            yield from _mismatch(view, path, entry, known[name])
        elif not entry.data_type and view.message.backend == "python":
            yield view.found(
                f"input '{name}' has no data_type: the Python backend crashes, often the whole server", *path
            )


def _mismatch(view: ConfigView, path: tuple[str | int, ...], entry: Any, tensor: Any) -> Iterator[Found]:
    if entry.data_type != tensor.data_type and not (tensor.data_type == 0 and view.may_complete(INPUT)):
        given, wanted = data_type_name(entry.data_type), data_type_name(tensor.data_type)
        yield view.found(f"input '{tensor.name}' is {given} in the warm-up, {wanted} in the model", *path)
    fits = len(entry.dims) == len(tensor.dims) and all(
        wanted in (-1, given) for given, wanted in zip(entry.dims, tensor.dims, strict=True)
    )
    fits = fits or (not tensor.dims and view.may_complete(INPUT))
    if not fits and not any(dim < 0 for dim in entry.dims):
        message = f"input '{tensor.name}' has dims {list(entry.dims)} in the warm-up, {list(tensor.dims)} in the model"
        yield view.found(message, *path)


@rule(
    "MW425",
    "warm-up with a larger batch than the model takes",
    Severity.ERROR,
    why="A warm-up runs batch_size requests of one row each as one batch. More than max_batch_size fail; with the "
    "Python backend they crash the server with a segmentation fault (seen with 24.10).",
    fix="Lower batch_size to max_batch_size, or to 1 for a model that does not batch.",
    example=Example(
        _warm("data_type: TYPE_FP32, dims: [ 2 ], zero_data: true", 'name: "many", batch_size: 9'),
        _warm("data_type: TYPE_FP32, dims: [ 2 ], zero_data: true", 'name: "many", batch_size: 8'),
    ),
)
def too_large_batch(view: ConfigView) -> Iterator[Found]:
    most = max(view.message.max_batch_size, 1)
    for index, sample in samples_that_run(view):
        if sample.batch_size > most and not view.may_complete(MAX_BATCH_SIZE):
            yield view.found(
                f"batch_size is {sample.batch_size}, the largest is {most}", "model_warmup", index, "batch_size"
            )
