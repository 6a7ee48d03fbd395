"""`serving.model_warmup`: fills in what an entry leaves out, from the model and its golden samples.

    model_warmup: [{name: first}]        every input gets the first golden sample, written to <model>/warmup/, and
                                         every control of a sequence the value that a sequence of one request has

An input without `data_type` and `dims` gets the model's, with the sample's size for a dynamic dimension. An input
without data gets the sample. An entry is one request of batch size 1, which the server copies `batch_size` times. The
server skips an entry whose `batch_size` is 0, so it is 1 unless it is written.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.config.model_config import ConfigTensor, ConfigTensors
from modelwright.config.served import control_values
from modelwright.errors import ConfigError
from modelwright.triton.arrays import datatype_of
from modelwright.triton.dtypes import BY_CONFIG, BY_NAME
from modelwright.triton.layout import WARMUP
from modelwright.triton.model_config_pb2 import data_type_name, schema
from modelwright.triton.tensor_files import STRING, count_strings, raw, size_bytes
from modelwright.verification.golden import load_golden
from modelwright.verification.samples import request_of

if TYPE_CHECKING:
    import numpy as np

_SOURCE = "input_data_type"  # the oneof: zero_data, random_data or input_data_file


def complete(
    config: Any, serving: Mapping[str, Any], tensors: ConfigTensors, golden: Path, where: str
) -> dict[str, bytes]:
    """Fill in the entries of `config.model_warmup`, which are those of `serving`. Returns {name: content} of its files.

    `golden` is the verified golden.npz. Raises ConfigError, with `where` in front of the field.
    """
    if not config.model_warmup:
        return {}
    samples = request_of(load_golden(golden)[0][:1], batched=False)
    known = {tensor.name: tensor for tensor in tensors.inputs}
    controls = control_values(config, 0)
    files: dict[str, bytes] = {}
    for index, entry in enumerate(config.model_warmup):
        place = f"{where}.model_warmup[{index}]"
        if serving["model_warmup"][index].get("batch_size") is None:
            entry.batch_size = 1
        for name in list(entry.inputs) or known:
            files |= _complete_input(entry.inputs[name], known.get(name), samples, f"{place}.inputs.{name}")
        files |= _add_controls(entry, controls)
    return files


def _add_controls(entry: Any, controls: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, bytes]:
    """A warm-up passes the sequence batcher by, so the control tensors are inputs like others."""
    files = {}
    for name, value in controls.items():
        if name not in entry.inputs:
            given, file = entry.inputs[name], _file_name(name)
            given.data_type = schema().DataType.Value(BY_NAME[datatype_of(value)].config)
            given.dims.extend(value.shape)
            given.input_data_file = file
            files[f"{WARMUP}/{file}"] = raw(value)
    return files


def _complete_input(
    given: Any, tensor: ConfigTensor | None, samples: Mapping[str, np.ndarray[Any, Any]], where: str
) -> dict[str, bytes]:
    source = given.WhichOneof(_SOURCE)
    if tensor is None:
        # A sequence control is not an input of the config. It can be warmed up if its entry is complete.
        if given.data_type and given.dims and source:
            return {}
        raise ConfigError(f"{where}: the model has no such input", f"known: {', '.join(sorted(samples))}")
    sample = samples[tensor.name]
    given.data_type = given.data_type or schema().DataType.Value(BY_NAME[tensor.dtype].config)
    if not given.dims:
        given.dims.extend(tensor.dims)
    if -1 in given.dims:
        given.dims[:] = _concrete(list(given.dims), list(sample.shape), where)
    if source:
        return {}
    if list(given.dims) != list(sample.shape):
        hint = "remove dims, or add zero_data, random_data or input_data_file"
        raise ConfigError(
            f"{where}: dims are {list(given.dims)}, those of the golden sample {list(sample.shape)}", hint
        )
    name = _file_name(tensor.name)
    given.input_data_file = name
    return {f"{WARMUP}/{name}": raw(sample)}


def _concrete(dims: list[int], shape: list[int], where: str) -> list[int]:
    if len(dims) != len(shape):
        hint = "write them without -1"
        raise ConfigError(f"{where}: dims {dims} do not fit the golden sample, whose shape is {shape}", hint)
    return [actual if dim == -1 else dim for dim, actual in zip(dims, shape, strict=True)]


def _file_name(tensor: str) -> str:
    """A file name for a tensor, whose name may have any characters."""
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", tensor)
    return f"golden-{plain}" if plain == tensor else f"golden-{plain}-{hashlib.sha256(tensor.encode()).hexdigest()[:8]}"


def check_size(data_type: int, dims: list[int], data: bytes, where: str) -> None:
    """Check that a file holds a whole tensor; the server ignores what follows it. Raises ConfigError."""
    name = data_type_name(data_type)
    if not dims or -1 in dims or name not in BY_CONFIG:
        return  # the server refuses it, and lint says so
    shown = f"{name} {dims}"
    if name == STRING:
        count, found = math.prod(dims), count_strings(data)
        if found is None or found < count:
            held = "ends in the middle of one" if found is None else f"has {found}"
            hint = "a string is written as its length (4 bytes, little-endian) and its bytes"
            raise ConfigError(f"{where}: {shown} needs {count} strings, the file {held}", hint)
        return
    wanted = size_bytes(name, dims) or 0
    if len(data) < wanted:
        hint = "write the numbers as raw bytes, little-endian"
        raise ConfigError(f"{where}: {shown} needs {wanted} bytes, the file has {len(data)}", hint)
