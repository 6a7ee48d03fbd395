"""Samples from users' files, checked against the model before anything is sent.

    x.npz     `input/<name>` or `<name>`: N samples along the first axis, as in golden.npz
    x.json    {name: value}, a list of these, or perf_analyzer's {"data": [{name: [...] or {"content", "shape"}}]},
              whose validation_data is not compared
    folder/   .npz and .json files, in the order of their names; or, as for perf_analyzer, one file per input, named as
              the input: raw and little-endian, strings a line each

A value is without the batch dimension; in .json it may have it, and is several samples then. Formats of perf_analyzer:
its docs/input_data.md and src/data_loader.cc.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import LoadError, TensorFileError, one_line
from modelwright.fsops import open_file, read_file
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface
from modelwright.loadtest.payloads.samples import MAX_BYTES, check_fits, check_names, dtype_of, matches
from modelwright.text import size
from modelwright.triton.arrays import is_float, rounded_to
from modelwright.triton.tensors import Tensors, damage_named, load_tensors
from modelwright.verification.samples import unpacked_columns, unstacked

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_LENGTH_BYTES = 4  # in front of each string


def read_samples(
    interface: ModelInterface, path: Path, shapes: Mapping[str, Sequence[int]] | None = None
) -> list[Tensors]:
    """All samples of a file or folder in order, each one row; at least one. Raises LoadError.

    `shapes`, per input, are for values that come as a flat row and have variable sizes.
    """
    shapes = shapes or {}
    try:
        if path.is_dir():
            return _folder(interface, path, shapes)
        if not path.is_file():
            raise LoadError(f"{path}: no such file", "give an .npz or .json file, or a folder of them")
        _check_bytes(path.stat().st_size, path)
        return _file(interface, path, shapes)
    except OSError as error:
        raise LoadError(f"{path}: {error.strerror or error}") from None


def _file(interface: ModelInterface, path: Path, shapes: Mapping[str, Sequence[int]]) -> list[Tensors]:
    if path.suffix not in (".npz", ".json"):
        raise LoadError(
            f"{path}: neither .npz nor .json", "a folder can hold one raw file per input, named as the input"
        )
    samples = _npz(interface, path) if path.suffix == ".npz" else _json(interface, path, shapes)
    if not samples:
        raise LoadError(f"{path}: no samples", "one is enough; 32 or more keep a response cache from answering")
    for index, sample in enumerate(samples):
        check_fits(interface, sample, f"{path}: sample {index}")
    return samples


def _check_bytes(size_bytes: int, path: Path) -> None:
    if size_bytes == 0:
        raise LoadError(f"{path}: empty file")
    if size_bytes > MAX_BYTES:
        raise LoadError(f"{path}: {size(size_bytes)}, at most {size(MAX_BYTES)} are read", "keep fewer samples")


# --- .npz -------------------------------------------------------------------------------------------------------------


def _npz(interface: ModelInterface, path: Path) -> list[Tensors]:
    arrays = {name: _bytes_of(array) for name, array in load_npz(path).items()}
    if any(name.startswith("input/") for name in arrays):  # golden.npz, which holds outputs, too
        arrays = {name[len("input/") :]: array for name, array in arrays.items() if name.startswith("input/")}
    columns = unpacked_columns(arrays)
    check_names(interface, columns, str(path))
    counts = {len(column) if isinstance(column, list) or column.ndim else None for column in columns.values()}
    if len(counts) > 1 or None in counts:
        shown = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise LoadError(f"{path}: arrays of different lengths: {shown}", "the first axis counts the samples")
    types = {tensor.name: tensor.datatype for tensor in interface.inputs}
    return [rounded_to(_with_dimensions(interface, sample), types) for sample in unstacked(columns)]


def _with_dimensions(interface: ModelInterface, sample: Tensors) -> Tensors:
    """A sample as it is sent: the protocol has no scalars, each is one value in a tensor, where the model takes one."""
    dims = {tensor.name: tensor.dims for tensor in interface.inputs}
    return {
        name: array.reshape(1) if array.ndim == 0 and dims[name] == (1,) else array for name, array in sample.items()
    }


def load_npz(path: Path) -> Tensors:
    """Its arrays, strings as `tensors.save_tensors` stores them. Raises LoadError, also if it unpacks to too much."""
    try:
        with damage_named(path), open_file(path) as file, zipfile.ZipFile(file) as archive:
            _check_bytes(sum(member.file_size for member in archive.infolist()), path)  # a small file can hold much
        return load_tensors(path)
    except TensorFileError as error:
        raise LoadError(error.message, error.hint) from None


def _bytes_of(array: Array) -> Array:
    """numpy's strings of fixed width as object arrays of bytes, Triton's form."""
    import numpy as np

    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(object) if array.dtype.kind == "S" else array


# --- .json ------------------------------------------------------------------------------------------------------------


def _json(interface: ModelInterface, path: Path, shapes: Mapping[str, Sequence[int]]) -> list[Tensors]:
    try:
        data = json.loads(read_file(path, MAX_BYTES))
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{path}: not JSON: {one_line(error)}") from None
    samples = [
        _sample(interface, entry, shapes, f"{path}: sample {i}") for i, entry in enumerate(_entries(data, interface))
    ]
    return [row for sample in samples for row in _rows(interface, sample)]


def _rows(interface: ModelInterface, sample: Tensors) -> list[Tensors]:
    """A sample that has the batch dimension, although the format is without it, is as many samples as it has rows."""
    dims = {tensor.name: (-1, *tensor.dims) for tensor in interface.inputs}
    counts = {array.shape[0] if matches(dims[name], array.shape) else None for name, array in sample.items()}
    count = counts.pop() if len(counts) == 1 else None
    if not interface.max_batch_size or count is None:
        return [sample]
    return [{name: array[index, ...] for name, array in sample.items()} for index in range(count)]


def _entries(data: Any, interface: ModelInterface) -> list[Any]:
    """The samples of any form of file. perf_analyzer's streams are joined."""
    if isinstance(data, dict):
        is_input = any(tensor.name == "data" for tensor in interface.inputs)
        data = data["data"] if "data" in data and not is_input else [data]
    entries = data if isinstance(data, list) else [data]
    return [step for entry in entries for step in (entry if isinstance(entry, list) else [entry])]


def _sample(interface: ModelInterface, entry: Any, shapes: Mapping[str, Sequence[int]], where: str) -> Tensors:
    if not isinstance(entry, dict):
        raise LoadError(f"{where}: is {type(entry).__name__}, expected an object: {{input: value}}")
    check_names(interface, entry, where)
    tensors = {tensor.name: tensor for tensor in interface.inputs}
    return {
        name: _tensor(tensors[name], value, shapes.get(name), f"{where}: input '{name}'")
        for name, value in entry.items()
    }


def _tensor(tensor: InterfaceTensor, value: Any, shape: Sequence[int] | None, where: str) -> Array:
    dtype_of(tensor, where)
    if isinstance(value, dict):
        if unknown := value.keys() - {"content", "shape", "b64"}:
            raise LoadError(f"{where}: unknown key '{min(unknown)}'", "known: content, shape, b64")
        shape = _given_shape(value["shape"], where) if "shape" in value else shape
        value = value.get("content", value)
    if isinstance(value, dict):
        array = _from_raw(tensor, _decoded(value, where), where)
    else:
        array = _strings(value, where) if tensor.datatype == "BYTES" else _numbers(tensor, value, where)
    return shaped(tensor, array, shape, where)


def _given_shape(value: Any, where: str) -> list[int]:
    if not isinstance(value, list) or not all(type(size) is int and size >= 0 for size in value):
        raise LoadError(f"{where}: shape {value!r}: expected a list of sizes, without the batch dimension")
    return value


def _decoded(value: dict[str, Any], where: str) -> bytes:
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise LoadError(f"{where}: no values: expected content or b64: {one_line(error)}") from None


def _from_raw(tensor: InterfaceTensor, data: bytes, where: str) -> Array:
    """Little-endian values. Strings have their length in front; if the lengths do not fit, the data is one string."""
    import numpy as np

    if tensor.datatype == "BYTES":
        return _objects(_prefixed(data))
    dtype = dtype_of(tensor, where)
    if len(data) % dtype.itemsize:
        raise LoadError(f"{where}: {len(data)} bytes are not a multiple of a {tensor.datatype} value's size")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)


def _prefixed(data: bytes) -> list[bytes]:
    parts, start = [], 0
    while start < len(data):
        end = start + _LENGTH_BYTES + int.from_bytes(data[start : start + _LENGTH_BYTES], "little")
        if end > len(data) or start + _LENGTH_BYTES > len(data):
            return [data]
        parts.append(data[start + _LENGTH_BYTES : end])
        start = end
    return parts


def _strings(value: Any, where: str) -> Array:
    """Nested lists of str, as bytes in the same shape."""
    shape, items = [], [value]
    while items and isinstance(items[0], list):
        lengths = {len(item) if isinstance(item, list) else -1 for item in items}
        if len(lengths) > 1:
            raise LoadError(f"{where}: lists of different lengths", "a tensor is rectangular: fill the rows up")
        shape.append(lengths.pop())
        items = [inner for item in items for inner in item]
    for item in items:
        if not isinstance(item, str):
            raise LoadError(f"{where}: the model takes strings, got {item!r:.40}")
    try:
        return _objects([item.encode() for item in items]).reshape(shape)
    except UnicodeEncodeError as error:
        raise LoadError(f"{where}: {one_line(error)}") from None


def _objects(items: Sequence[bytes]) -> Array:
    import numpy as np

    made = np.empty(len(items), dtype=object)
    made[:] = items
    return made


def _numbers(tensor: InterfaceTensor, value: Any, where: str) -> Array:
    """Nested lists of numbers in the tensor's type. Integers may stand for floats, 0 and 1 for bools."""
    import numpy as np

    dtype = dtype_of(tensor, where)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise LoadError(f"{where}: {one_line(error)}", "a tensor is rectangular: fill the rows up") from None
    wanted = "fiu" if is_float(dtype) else {"i": "iu", "u": "iu", "b": "biu"}[dtype.kind]
    if array.size and array.dtype.kind not in wanted:
        raise LoadError(f"{where}: the model takes {tensor.datatype}, got {value!r:.40}")
    with np.errstate(over="ignore"):
        made = array.astype(dtype)
    changed = np.isinf(made) & np.isfinite(array) if is_float(dtype) else made != array
    if changed.any():
        raise LoadError(f"{where}: {array[changed].flat[0]} does not fit {tensor.datatype}")
    return made


def shaped(tensor: InterfaceTensor, array: Array, shape: Sequence[int] | None, where: str) -> Array:
    """In the given shape; without one, as it is, or a flat row in the model's shape. Raises LoadError."""
    dims = list(tensor.dims)
    wanted = list(shape) if shape is not None else list(array.shape)
    if shape is None and array.ndim <= 1 and not matches(dims, array.shape):
        if -1 in dims:
            example = f'{{"content": [...], "shape": {dims}}}'
            raise LoadError(f"{where}: {array.size} values need a shape that fits {dims}", example)
        wanted = dims
    if array.size != math.prod(wanted):
        raise LoadError(f"{where}: shape {wanted} takes {math.prod(wanted)} values, got {array.size}")
    return array.reshape(wanted)


# --- a folder ---------------------------------------------------------------------------------------------------------


def _folder(interface: ModelInterface, path: Path, shapes: Mapping[str, Sequence[int]]) -> list[Tensors]:
    files = sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
    if not files:
        raise LoadError(f"{path}: empty folder", "give .npz or .json files, or one raw file per input")
    _check_bytes(sum(file.stat().st_size for file in files), path)
    if {tensor.name for tensor in interface.inputs} & {file.name for file in files}:
        return [_raw_files(interface, path, files, shapes)]
    return [sample for file in files for sample in _file(interface, file, shapes)]


def _raw_files(
    interface: ModelInterface, path: Path, files: Sequence[Path], shapes: Mapping[str, Sequence[int]]
) -> Tensors:
    outputs = {tensor.name for tensor in interface.outputs}  # perf_analyzer's validation data
    found = {file.name: file for file in files if file.name not in outputs}
    check_names(interface, found, str(path))
    sample = {}
    for tensor in interface.inputs:
        if tensor.name in found:
            data, where = read_file(found[tensor.name], MAX_BYTES), f"{found[tensor.name]}"
            lines = tensor.datatype == "BYTES"
            array = _objects(data.removesuffix(b"\n").split(b"\n")) if lines else _from_raw(tensor, data, where)
            sample[tensor.name] = shaped(tensor, array, shapes.get(tensor.name), where)
    check_fits(interface, sample, str(path))
    return sample
