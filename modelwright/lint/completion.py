"""What tritonserver adds to a config before it checks it.

`with_backend` fills in names from file names, as AutoCompleteBackendFields of core's model_config_utils.cc does, with
auto-completion or without. With auto-completion only, `with_tensors` adds what the onnxruntime backend's
AutoCompleteConfig takes from the ONNX file, and `completable` says what other backends may add, unseen, from theirs.
"""

from __future__ import annotations

import os
from typing import Any

from modelwright.lint.tree import ModelFolder
from modelwright.onnx.signature import Signature, Value
from modelwright.triton.dtypes import BY_ONNX
from modelwright.triton.model_config_pb2 import schema

ENSEMBLE = "ensemble"
DEFAULT_FILES = {
    "onnxruntime": "model.onnx",
    "python": "model.py",
    "tensorrt": "model.plan",
    "pytorch": "model.pt",
    "openvino": "model.xml",
}
PLATFORMS = {
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "tensorrt_plan": "tensorrt",
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "torch_aoti": "pytorch",  # packages of AOTInductor, model.pt2 (core's constants.h)
}
# Backends whose model file cannot be a folder.
_PLAIN_FILES = ("tensorrt", "pytorch")
_PLATFORM_OF = {"tensorrt": "tensorrt_plan", "onnxruntime": "onnxruntime_onnx", "pytorch": "pytorch_libtorch"}
# What a backend may complete (UpdateModelConfig in core's backend_model.cc takes over these fields and the scheduler).
INPUT, OUTPUT, MAX_BATCH_SIZE, POLICY = "input", "output", "max_batch_size", "model_transaction_policy"
# pytorch_backend, in every version, and the graphdefs of tensorflow_backend: both skip it, for want of metadata.
_NOTHING = ("pytorch", "tensorflow_graphdef")
# These fill in what entries lack, and add entries only where there are none (FixIO in tensorrt_backend's sources).
_FILLING = ("tensorrt", "tensorflow", "openvino", "onnxruntime")
_DEFAULT_MAX_BATCH_SIZE = 4  # what the server passes to backends unless --backend-config says otherwise


def with_backend(written: Any, model: ModelFolder) -> Any:
    """A copy with name, backend, platform and default_model_filename filled in as the server does."""
    config = type(written)()
    config.CopyFrom(written)
    config.name = config.name or _text(model.name)
    _fill_tensorflow(config, model)
    if config.platform == "torch_aoti":
        config.backend = config.backend or "pytorch"
        config.default_model_filename = config.default_model_filename or "model.pt2"
    for backend in ("tensorrt", "onnxruntime", "openvino", "pytorch", "python"):
        if config.backend or config.platform in ("tensorflow_savedmodel", "tensorflow_graphdef"):
            break
        if _is_of(config, backend, model):
            config.backend = backend
    if config.backend in DEFAULT_FILES:
        config.platform = config.platform or _PLATFORM_OF.get(config.backend, "")
        config.default_model_filename = config.default_model_filename or DEFAULT_FILES[config.backend]
    if not (config.backend or config.platform or config.default_model_filename) and "." in config.name:
        config.backend = _text(model.name).partition(".")[2]
        config.default_model_filename = f"model.{config.backend}"
    return config


def _text(name: str) -> str:
    """A folder's name as protobuf stores it: bytes that are not UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


def _first_version(model: ModelFolder) -> str | None:
    """The folder that the server looks into: the first one by name, version or not."""
    return model.folders[0] if model.folders else None


def _is_of(config: Any, backend: str, model: ModelFolder) -> bool:
    file, platform = DEFAULT_FILES[backend], _PLATFORM_OF.get(backend)
    if config.default_model_filename == file or (platform and config.platform == platform):
        return True
    first = _first_version(model)
    if config.platform or config.default_model_filename or first is None:
        return False
    entry = model.inside(first).get(file)
    return entry is not None and not (backend in _PLAIN_FILES and entry.kind == "folder")


def _fill_tensorflow(config: Any, model: ModelFolder) -> None:
    names = {"model.savedmodel": "tensorflow_savedmodel", "model.graphdef": "tensorflow_graphdef"}
    if not config.platform and config.backend in ("", "tensorflow"):
        first = _first_version(model)
        inside = model.inside(first) if first else {}
        for file, platform in names.items():
            there = file in inside and (inside[file].kind == "folder") == (file == "model.savedmodel")
            if config.default_model_filename == file or (not config.default_model_filename and there):
                config.platform = platform
    for file, platform in names.items():
        if config.platform == platform:
            config.backend = config.backend or "tensorflow"
            config.default_model_filename = config.default_model_filename or file


def completes_nothing(config: Any) -> bool:
    """Whether the backend is one that cannot complete any config."""
    return config.backend in _NOTHING or config.platform in _NOTHING


def completable(config: Any) -> frozenset[str]:
    """The fields that the backend may complete, whatever its file says.

    A Python model may change them all, and so may a backend that this linter does not know. Others leave alone what is
    written. dali_backend (config_tools.cc) adds entries that are missing.
    """
    if completes_nothing(config) or config.platform == ENSEMBLE:
        return frozenset()
    if config.backend == "onnxruntime" and (config.input or config.batch_input) and config.output:
        return frozenset()
    if config.backend not in (*_FILLING, "dali"):
        return frozenset((INPUT, OUTPUT, MAX_BATCH_SIZE, POLICY))
    found = {MAX_BATCH_SIZE} if config.max_batch_size == 0 else set()
    for side in (INPUT, OUTPUT):
        entries = getattr(config, side)
        whole = entries and all(entry.data_type and entry.dims for entry in entries)
        if config.backend == "dali" or not whole:
            found.add(side)
    return frozenset(found)


def with_tensors(config: Any, scan: Signature) -> Any:
    """A copy with inputs, outputs and batching from the ONNX file, where the config leaves them out.

    The config itself if max_batch_size is set and the model cannot batch: the backend refuses it.
    """
    no_inputs, no_outputs = not config.input and not config.batch_input, not config.output
    if not no_inputs and not no_outputs:
        return config
    completed = type(config)()
    completed.CopyFrom(config)
    if all(_batches(value) for value in (*scan.inputs, *scan.outputs)):
        completed.max_batch_size = completed.max_batch_size or _DEFAULT_MAX_BATCH_SIZE
        if completed.max_batch_size > 1 and not completed.HasField("sequence_batching"):
            completed.dynamic_batching.SetInParent()
    elif completed.max_batch_size:
        return config
    if no_inputs:
        _add_tensors(completed.input, scan.inputs, completed.max_batch_size)
    if no_outputs:
        _add_tensors(completed.output, scan.outputs, completed.max_batch_size)
    return completed


def cannot_batch(config: Any, scan: Signature) -> bool:
    """Whether auto-completion fails: max_batch_size is set, and the first dimension of some tensor is not dynamic."""
    incomplete = not config.output or (not config.input and not config.batch_input)
    return bool(incomplete and config.max_batch_size and not all(map(_batches, (*scan.inputs, *scan.outputs))))


def _batches(value: Value) -> bool:
    return bool(value.dims) and plain_dims(value)[0] == -1


def plain_dims(value: Value) -> list[int]:
    """A tensor's dimensions as the backend reads them: -1 for everything that is not a number."""
    return [dim if isinstance(dim, int) and dim >= 0 else -1 for dim in value.dims or ()]


def _add_tensors(entries: Any, values: tuple[Value, ...], max_batch_size: int) -> None:
    for value in values:
        dims = plain_dims(value)[1 if max_batch_size > 0 else 0 :]
        entry = entries.add(name=value.name, dims=dims or [1])
        if value.elem_type in BY_ONNX:
            entry.data_type = schema().DataType.Value(BY_ONNX[value.elem_type].config)
        if not dims and max_batch_size > 0:
            entry.reshape.SetInParent()
