"""`serving.model_warmup`: what an entry leaves out follows from the model and its golden samples.

    model_warmup: [{name: first}]        every input gets the first golden sample, written to <model>/warmup/

An input's `data_type` and `dims` are the model's; where its dims are dynamic, the sample's. An input without a source
of data gets the sample. An entry holds one request of batch size 1, which the server copies `batch_size` times; it
skips an entry whose `batch_size` is 0, so that is 1 unless it is written.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.config.model_config import Tensor, Tensors
from modelwright.errors import ConfigError
from modelwright.triton.dtypes import BY_CONFIG, BY_NAME
from modelwright.triton.layout import WARMUP
from modelwright.triton.model_config_pb2 import schema
from modelwright.verification.golden import load_golden

if TYPE_CHECKING:
    import numpy as np

_SOURCE = "input_data_type"  # the oneof: zero_data, random_data or input_data_file
_LENGTH_BYTES = 4  # in front of each string


def complete(config: Any, serving: Mapping[str, Any], tensors: Tensors, golden: Path, where: str) -> dict[str, bytes]:
    """Fill in the entries of `config.model_warmup`, as `serving` has them. Gives the files they need, by name.

    `golden` is the verified golden.npz. Raises ConfigError, with `where` in front of the field.
    """
    if not config.model_warmup:
        return {}
    samples = {name: array[0] for name, array in load_golden(golden)[0].items()}
    known = {tensor.name: tensor for tensor in tensors.inputs}
    files: dict[str, bytes] = {}
    for index, entry in enumerate(config.model_warmup):
        place = f"{where}.model_warmup[{index}]"
        if serving["model_warmup"][index].get("batch_size") is None:
            entry.batch_size = 1
        for name in list(entry.inputs) or known:
            files |= _complete_input(entry.inputs[name], known.get(name), samples, f"{place}.inputs.{name}")
    return files


def _complete_input(
    given: Any, tensor: Tensor | None, samples: Mapping[str, np.ndarray[Any, Any]], where: str
) -> dict[str, bytes]:
    source = given.WhichOneof(_SOURCE)
    if tensor is None:
        # Sequence controls can be warmed up with, and are no inputs that a client sends: written in full or not at all.
        if given.data_type and given.dims and source:
            return {}
        raise ConfigError(f"{where}: the model has no such input", f"its inputs: {', '.join(sorted(samples))}")
    sample = samples[tensor.name]
    given.data_type = given.data_type or schema().DataType.Value(BY_NAME[tensor.dtype].config)
    if not given.dims:
        given.dims.extend(tensor.dims)
    if -1 in given.dims:
        given.dims[:] = _concrete(list(given.dims), list(sample.shape), where)
    if source:
        return {}
    if list(given.dims) != list(sample.shape):
        hint = "leave dims out, or give zero_data, random_data or input_data_file"
        raise ConfigError(f"{where}: dims are {list(given.dims)}, the golden sample's {list(sample.shape)}", hint)
    name = _file_name(tensor.name)
    given.input_data_file = name
    return {f"{WARMUP}/{name}": raw(sample)}


def _concrete(dims: list[int], shape: list[int], where: str) -> list[int]:
    if len(dims) != len(shape):
        hint = "write them without -1"
        raise ConfigError(f"{where}: dims {dims} cannot follow the golden sample, whose shape is {shape}", hint)
    return [actual if dim == -1 else dim for dim, actual in zip(dims, shape, strict=True)]


def _file_name(tensor: str) -> str:
    """A file's name for a tensor, whatever characters its own has."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", tensor)
    return f"golden-{plain}" if plain == tensor else f"golden-{plain}-{hashlib.sha256(tensor.encode()).hexdigest()[:8]}"


def raw(array: np.ndarray[Any, Any]) -> bytes:
    """A tensor as Triton reads it from a file: little-endian, row by row; each string with its length in front."""
    import numpy as np

    if array.dtype != object:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    parts = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "little") + part for part in parts)


def check_size(data_type: int, dims: list[int], data: bytes, where: str) -> None:
    """Check that a file holds a whole tensor. More than that is no fault: the server reads the beginning."""
    name = schema().DataType.Name(data_type)
    if not dims or -1 in dims or name not in BY_CONFIG:
        return  # for the server, or lint, to refuse
    count = math.prod(dims)
    shown = f"{name} {dims}"
    if name == "TYPE_STRING":
        found = _count_strings(data)
        if found is None or found < count:
            held = "is not a row of them" if found is None else f"holds {found}"
            hint = "each string is written as its length (4 bytes, little-endian) and its bytes"
            raise ConfigError(f"{where}: {shown} takes {count} strings, the file {held}", hint)
        return
    wanted = count * _item_bytes(name)
    if len(data) < wanted:
        raise ConfigError(f"{where}: {shown} takes {wanted} bytes, the file has {len(data)}", "raw, little-endian")


def _item_bytes(data_type: str) -> int:
    bits = re.search(r"\d+$", data_type)
    return int(bits[0]) // 8 if bits else 1


def _count_strings(data: bytes) -> int | None:
    """How many strings a file holds; None where the lengths do not add up."""
    start = count = 0
    while start < len(data):
        start += _LENGTH_BYTES + int.from_bytes(data[start : start + _LENGTH_BYTES], "little")
        count += 1
    return count if start == len(data) else None
