"""The `onnxruntime` backend of the local server: behaves like the stock backend, on top of the Python backend.

The stock container has a native library for `backend: "onnxruntime"`; the local server uses this file for the same
repository and the same config.pbtxt. A model that loads here should load there, and one that the stock backend refuses
is refused here, with nearly the same message. The rules are those of triton-inference-server's onnxruntime_backend
(`src/onnxruntime.cc`). A model that needs what is missing here (implicit sequence state, batch inputs and outputs,
ragged batches, GPUs) is refused when it loads, after all checks of the stock backend.

It has the stock backend's faults, too: a request that onnxruntime fails on fails those that run with it, and a string
ends at its first NUL. One differs: a thread count that ends the whole stock server is refused here.

Runs in the server environment's interpreter, which has only numpy and triton_python_backend_utils, as the stock
container's has. onnxruntime lies in the folder `packages` beside this file, where Python models do not see it. The
modules beside this file are found because the Python backend's stub puts its folder on the path.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from load_check import (
    Config,
    LoadCheckError,
    TensorTypes,
    config_dims,
    describe,
    parse_boolean,
    parse_integer,
    validate,
    validate_warmup,
)

# Imported when first needed: tritonserver starts a process only for auto-completion, which often needs no session.
ort: Any = None

Array = np.ndarray[Any, Any]
Batched = tuple[int, Any, dict[str, Array]]  # a request of a batch: its index, itself, its inputs

PACKAGES = str(Path(__file__).with_name("packages"))
DEFAULT_MAX_BATCH_SIZE = 4  # what tritonserver passes to backends unless --backend-config says otherwise

BFLOAT16 = "tensor(bfloat16)"
BFLOAT16_SINCE = (1, 24, 2)  # the onnxruntime of Triton 26.03, the first release whose stock backend takes bfloat16
BFLOAT16_NUMBER = 16  # onnx.TensorProto.BFLOAT16


class TritonPythonModel:
    """One model instance. tritonserver gives each a process of its own."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Fill in inputs, outputs and batching from the model, only where the configuration leaves them out."""
        config = auto_complete_model_config.as_dict()
        lacks_inputs = not config.get("input") and not config.get("batch_input")
        lacks_outputs = not config.get("output")
        if lacks_inputs or lacks_outputs:
            session = create_session(config, Path(pb_utils.get_model_dir()))
            try:
                inputs, outputs = describe(session.get_inputs()), describe(session.get_outputs())
            except LoadCheckError as error:
                raise pb_utils.TritonModelException(str(error)) from None
            complete_batching(config, list(inputs.values()) + list(outputs.values()))
            if lacks_inputs:
                config["input"] = complete_io(inputs, config["max_batch_size"])
            if lacks_outputs:
                config["output"] = complete_io(outputs, config["max_batch_size"])
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        config: Config = json.loads(args["model_config"])
        self.max_batch_size = config["max_batch_size"]
        self.session = create_session(config, Path(args["model_repository"], args["model_version"]))
        self.run_options = create_run_options(config)
        try:
            validate(config, self.session)
            refuse_unsupported(config, self.session)
        except LoadCheckError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self.input_ranks = {
            node.name: len(node.shape)
            for node in [*self.session.get_inputs(), *self.session.get_overridable_initializers()]
        }
        self.output_dims = {output["name"]: config_dims(output) for output in config["output"]}
        self.string_outputs = {o["name"] for o in config["output"] if o["data_type"] == "TYPE_STRING"}
        nodes = [*self.session.get_inputs(), *self.session.get_overridable_initializers(), *self.session.get_outputs()]
        self.bfloat16 = {node.name for node in nodes if node.type == BFLOAT16}

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer a dynamic batch in one run. If that fails, all of its requests do, as in the stock backend."""
        responses: list[Any] = [None] * len(requests)
        batch: list[Batched] = []
        for index, request in enumerate(requests):
            try:
                batch.append((index, request, self.read(request)))
            except Exception as error:
                responses[index] = failure(error)
        for group in [batch] if self.max_batch_size > 0 else [[item] for item in batch]:
            for index, response in self.answer(group):
                responses[index] = response
        return responses

    def read(self, request: Any) -> dict[str, Array]:
        """The request's tensors for onnxruntime: strings as str, bfloat16 as its bits, scalars without dimensions."""
        feeds: dict[str, Array] = {}
        for tensor in request.inputs():
            name = tensor.name()
            array = read_bfloat16(tensor) if name in self.bfloat16 else tensor.as_numpy()
            if array.dtype == object:
                array = decode(name, array)
            feeds[name] = array.reshape(()) if self.input_ranks.get(name) == 0 else array
        return feeds

    def answer(self, group: list[Batched]) -> list[tuple[int, Any]]:
        try:
            return self.run(group) if group else []
        except Exception as error:
            return [(index, failure(error)) for index, _, _ in group]

    def run(self, group: list[Batched]) -> list[tuple[int, Any]]:
        """One inference for all requests: concatenated, run, split. Returns (index, response) pairs."""
        if len(group) == 1:
            feeds = group[0][2]
        else:
            feeds = {name: np.concatenate([feeds[name] for _, _, feeds in group]) for name in group[0][2]}
        wanted = sorted(set().union(*(request.requested_output_names() for _, request, _ in group)))
        arrays = dict(zip(wanted, self.infer(wanted, feeds), strict=True))
        arrays = {name: self.convert(name, array) for name, array in arrays.items()}
        if self.max_batch_size == 0:
            return [(group[0][0], self.respond(group[0][1], arrays))]
        return [(index, self.respond(request, rows)) for index, request, rows in split(group, arrays)]

    def infer(self, wanted: list[str], feeds: dict[str, Array]) -> list[Any]:
        """The outputs' arrays. onnxruntime takes and gives bfloat16 only in values of its own."""
        if not self.bfloat16:
            outputs: list[Any] = self.session.run(wanted, feeds, self.run_options)
            return outputs
        values = {name: ort_value(array, name in self.bfloat16) for name, array in feeds.items()}
        return [array_of(value) for value in self.session.run_with_ort_values(wanted, values, self.run_options)]

    def respond(self, request: Any, arrays: dict[str, Array]) -> Any:
        names = request.requested_output_names()
        return pb_utils.InferenceResponse([self.tensor(name, arrays[name]) for name in arrays if name in names])

    def tensor(self, name: str, array: Array) -> Any:
        if name not in self.bfloat16:
            return pb_utils.Tensor(name, array)
        return pb_utils.Tensor.from_dlpack(name, ort_value(array, True)._ortvalue.to_dlpack())

    def convert(self, name: str, value: Any) -> Array:
        array = np.asarray(value)
        if name in self.string_outputs:
            array = encode(array)
        # The protocol has no scalars; config.pbtxt says how many ones stand for one.
        return array.reshape(self.output_dims[name]) if array.ndim == 0 else array


def split(group: list[Batched], arrays: dict[str, Array]) -> list[Batched]:
    """Give each request its rows: (index, request, its outputs)."""
    sizes = [len(next(iter(feeds.values()))) for _, _, feeds in group]
    for name, array in arrays.items():
        if array.shape[0] < sum(sizes):
            raise ValueError(
                f"failed to split the output tensor '{name}' in responses: expected batch size of atleast {sum(sizes)} "
                f"in model output, got {array.shape[0]}"
            )
    answers: list[Batched] = []
    start = 0
    for (index, request, _), size in zip(group, sizes, strict=True):
        answers.append((index, request, {name: array[start : start + size] for name, array in arrays.items()}))
        start += size
    return answers


def failure(error: Exception) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"onnx runtime error: {error}"))


def decode(name: str, array: Array) -> Array:
    """Bytes to str: onnxruntime's Python API would use the repr of a bytes object.

    A string ends at its first NUL: the stock backend gives onnxruntime C strings.
    """
    try:
        flat = [item.partition(b"\0")[0].decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise ValueError(f"input '{name}': the local server takes strings in UTF-8 only: {error}") from None
    return object_array(flat, array.shape)


def encode(array: Array) -> Array:
    return object_array([item.encode() for item in array.ravel()], array.shape)


def object_array(items: list[Any], shape: tuple[int, ...]) -> Array:
    result: Array = np.empty(len(items), dtype=object)
    result[:] = items
    return result.reshape(shape)


# bfloat16: numpy has no such type, so an array holds its bits as uint16. The Python backend passes it as DLPack alone.


def read_bfloat16(tensor: Any) -> Array:
    from onnxruntime.capi.onnxruntime_pybind11_state import OrtValue

    return bits_of(OrtValue.from_dlpack(tensor.to_dlpack(), False))


def bits_of(value: Any) -> Array:
    """A copy of the bits of an onnxruntime value of bfloat16."""
    shape = value.shape()
    data = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape)) if math.prod(shape) else b""
    return np.frombuffer(data, np.uint16).reshape(shape)


def ort_value(array: Array, is_bfloat16: bool) -> Any:
    """An array as a value of onnxruntime. One of bfloat16 has memory of its own, which outlives the array."""
    if not is_bfloat16:
        if array.dtype == object:
            raise ValueError("the local server cannot pass strings to a model that has bfloat16 tensors, too")
        return ort.OrtValue.ortvalue_from_numpy(array)
    value = ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), BFLOAT16_NUMBER)
    ctypes.memmove(value.data_ptr(), np.ascontiguousarray(array).ctypes.data, array.nbytes)
    return value


def array_of(value: Any) -> Array:
    return bits_of(value) if value.data_type() == BFLOAT16 else value.numpy()


# Sessions


def create_session(config: Config, directory: Path) -> Any:
    """An onnxruntime session on the CPU for a version directory, with the configuration's options."""
    global ort
    if PACKAGES not in sys.path:
        sys.path.append(PACKAGES)
    import onnxruntime as ort

    path = directory / (config.get("default_model_filename") or "model.onnx")
    if path.is_dir():
        path = path / "model.onnx"
    if not path.exists():
        raise pb_utils.TritonModelException(f"unable to find '{path}' for model instance '{config['name']}'")
    options = session_options(config, directory.parent)
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise pb_utils.TritonModelException(f"onnx runtime error: {error}") from None
    refuse_early_bfloat16(config, session)
    return session


def refuse_early_bfloat16(config: Config, session: Any) -> None:
    """Refuse bfloat16 where the stock backend of this onnxruntime's Triton release does not take it."""
    if tuple(map(int, ort.__version__.split(".")[:3])) >= BFLOAT16_SINCE:
        return
    for side, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for node in nodes:
            if node.type == BFLOAT16:
                raise pb_utils.TritonModelException(
                    f"unsupported datatype TYPE_BF16 for {side} '{node.name}' for model '{config['name']}'"
                )


def session_options(config: Config, folder: Path) -> Any:
    """The options that the stock backend sets, from the same parameters.

    Thread counts stay at onnxruntime's own default (the number of physical cores) unless given, as in the stock
    container. There too every instance has a pool of its own: on a small machine, more than one instance wants an
    explicit `intra_op_thread_count`.
    """
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    options.graph_optimization_level = {
        -1: levels.ORT_ENABLE_BASIC,
        1: levels.ORT_ENABLE_EXTENDED,
        2: levels.ORT_DISABLE_ALL,
    }.get(level, levels.ORT_ENABLE_ALL)
    mode = integer(config, "execution_mode", 0)
    if mode not in (0, 1):
        raise pb_utils.TritonModelException(
            f"Invalid configuration value provided. Expected values for execution_mode are 0 or 1 but got {mode} ."
        )
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode else ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = max(0, integer(config, "intra_op_thread_count", 0))
    options.inter_op_num_threads = max(0, integer(config, "inter_op_thread_count", 0))
    options.enable_cpu_mem_arena = boolean(config, "enable_mem_arena", True)
    options.enable_mem_pattern = boolean(config, "enable_mem_pattern", True)
    key = "session.use_device_allocator_for_initializers"
    if parameter(config, key) is not None:
        options.add_session_config_entry(key, parameter(config, key))
    check_accelerators(config)
    for library in config.get("model_operations", {}).get("op_library_filename", []):
        options.register_custom_ops_library(library_here(config["name"], library, folder))
    return options


def library_here(model: str, path: str, folder: Path) -> str:
    """A library of custom operators. One of the model's own folder lies where this server has its repository."""
    own = folder / path.partition(f"/{model}/")[2] if path.startswith("/") else folder
    return str(own) if own.is_file() else path


def create_run_options(config: Config) -> Any:
    options = ort.RunOptions()
    key = "memory.enable_memory_arena_shrinkage"
    if parameter(config, key) is not None:
        options.add_run_config_entry(key, parameter(config, key))
    return options


def check_accelerators(config: Config) -> None:
    """Refuse unknown CPU accelerators. The stock one, OpenVINO, is replaced by onnxruntime's CPU provider here."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        if accelerator["name"] != "openvino":
            raise pb_utils.TritonModelException(f"unknown Execution Accelerator '{accelerator['name']}' is requested")


def parameter(config: Config, key: str) -> str | None:
    value = config.get("parameters", {}).get(key)
    return None if value is None else str(value.get("string_value", ""))


def integer(config: Config, key: str, default: int) -> int:
    value = parameter(config, key)
    number = default if value is None else parse_integer(value)
    if number is None:
        raise pb_utils.TritonModelException(f"failed to convert '{value}' to integral number")
    return number


def boolean(config: Config, key: str, default: bool) -> bool:
    value = parameter(config, key)
    found = default if value is None else parse_boolean(value)
    if found is None:
        raise pb_utils.TritonModelException(f"failed to convert '{value}' to boolean")
    return found


# Auto-completion


def complete_batching(config: Config, tensors: list[tuple[str, list[int]]]) -> None:
    """Turn batching on if the first dimension of every tensor is dynamic; otherwise refuse it."""
    if not all(dims and dims[0] == -1 for _, dims in tensors):
        if config["max_batch_size"] != 0:
            raise pb_utils.TritonModelException(
                f"autofill failed for model '{config['name']}': model does not support batching while non-zero "
                "max_batch_size is specified"
            )
        return
    if config["max_batch_size"] == 0:
        config["max_batch_size"] = DEFAULT_MAX_BATCH_SIZE
    if config["max_batch_size"] > 1 and "sequence_batching" not in config:
        config.setdefault("dynamic_batching", {})


def complete_io(tensors: TensorTypes, max_batch_size: int) -> list[Config]:
    """Configuration entries for tensors. One without dimensions of its own is [1], reshaped where it is batched."""
    entries = []
    for name, (data_type, dims) in tensors.items():
        entry: Config = {"name": name, "data_type": data_type, "dims": dims[1:] if max_batch_size > 0 else dims}
        if not entry["dims"]:
            entry["dims"] = [1]
            if max_batch_size > 0:
                entry["reshape"] = {"shape": []}
        entries.append(entry)
    return entries


def refuse_unsupported(config: Config, session: Any) -> None:
    """Refuse a model that only the stock container can serve; it would load there."""
    found = [field for field in ("batch_input", "batch_output") if config.get(field)]
    found += ["sequence_batching.state"] if config.get("sequence_batching", {}).get("state") else []
    found += ["input.allow_ragged_batch"] if any(i.get("allow_ragged_batch") for i in config["input"]) else []
    if found:
        validate_warmup(config, session)
        raise pb_utils.TritonModelException(
            f"unable to load model '{config['name']}': {', '.join(found)}: supported by the stock container's "
            "onnxruntime backend, but not by the local server"
        )
