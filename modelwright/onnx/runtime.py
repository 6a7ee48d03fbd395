"""ONNX files in onnxruntime, on the CPU."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, one_line
from modelwright.onnx.signature import Value
from modelwright.server.backends.onnxruntime.load_check import CONFIG_TYPES
from modelwright.triton.arrays import BF16, datatype_of, numpy_dtype
from modelwright.triton.dtypes import BY_CONFIG, BY_NAME

if TYPE_CHECKING:
    import numpy as np
    from onnxruntime import InferenceSession

    from modelwright.triton.tensors import Tensors

_BFLOAT16 = "tensor(bfloat16)"  # as onnxruntime names it

_NO_KERNEL = re.compile(r"Could not find an implementation for (\w+)\((\d+)\)")
_NO_LOCALE = re.compile(r"construct locale with name: ?([\w.@-]+)")


def load_session(
    path: Path, threads: int = 1, graph_level: int = 0, *, libraries: Iterable[Path] = (), quiet: bool = False
) -> InferenceSession:
    """Load a file, external weights included. Raises StepError with onnxruntime's message on one line.

    `graph_level` is `optimization.graph.level` of the config that serves it. The shapes that the session says depend on
    it: folding constants can make a dynamic dimension a number. `libraries` have custom operators. `quiet`: runs that
    fail log nothing.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    known = {-1: levels.ORT_ENABLE_BASIC, 1: levels.ORT_ENABLE_EXTENDED, 2: levels.ORT_DISABLE_ALL}
    options.graph_optimization_level = known.get(graph_level, levels.ORT_ENABLE_ALL)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4 if quiet else 3  # 3: errors only, which also arrive as exceptions
    for library in libraries:
        _register(options, library)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _onnxruntime_errors() as error:
        reason = one_line(error).replace(f"{path.parent}/", "")
        raise StepError(f"{path.name}: onnxruntime does not load it: {reason}", _load_hint(reason)) from error


def optimised_offline(
    path: Path, out: Path, level: str, libraries: Iterable[Path] = (), without: Iterable[str] = ()
) -> Path:
    """Write the graph as onnxruntime optimises it at a level, "basic" or "extended", and return `out`.

    Both levels fit every machine; those above choose the layout of tensors by this machine's CPU. `without` names
    optimisers of onnxruntime that are left out. Raises StepError.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = {"basic": levels.ORT_ENABLE_BASIC, "extended": levels.ORT_ENABLE_EXTENDED}[level]
    options.optimized_model_filepath = str(out)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{out.name}.data")
    options.log_severity_level = 3
    for library in libraries:
        _register(options, library)
    try:
        onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without) or None
        )
    except _onnxruntime_errors() as error:
        raise StepError(f"{path.name}: onnxruntime does not load it: {one_line(error)}") from error
    return out


def _register(options: Any, library: Path) -> None:
    import onnxruntime

    try:
        options.register_custom_ops_library(str(library))
    except _onnxruntime_errors() as error:
        reason = one_line(error).replace(f"{library.parent}/", "")
        raise StepError(
            f"{library.name}: onnxruntime does not load it as a library of custom operators: {reason}",
            f"build it for this platform and onnxruntime {onnxruntime.__version__}; it exports RegisterCustomOps",
        ) from error


def session_values(session: InferenceSession) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """(inputs, outputs) as the session has them. These are what the server compares a config with.

    It has inferred shapes, which the file may declare loosely or not at all.
    """
    return tuple(map(_value_of, session.get_inputs())), tuple(map(_value_of, session.get_outputs()))


def _value_of(node: Any) -> Value:
    """An input or output, as if a file declared it. Not for sequences and maps, which `check` refuses before."""
    config_type = CONFIG_TYPES.get(node.type, "")
    elem_type = BY_CONFIG[config_type].onnx if config_type in BY_CONFIG else 0
    return Value(node.name, "tensor", elem_type, tuple(-1 if dim is None else dim for dim in node.shape))


def run_session(session: InferenceSession, inputs: Tensors, wanted: Sequence[str] = ()) -> Tensors:
    """Run a model once on a whole batch, for all outputs or those `wanted`.

    Strings go in and come out as object arrays of bytes. Raises StepError when onnxruntime refuses the inputs or fails.
    """
    names = list(wanted) or [output.name for output in session.get_outputs()]
    feed = {name: _encoded(array, bytes.decode) for name, array in inputs.items()}
    try:
        outputs = _run_values(session, names, feed) if _has_bfloat16(session) else session.run(names, feed)
    except (ValueError, *_onnxruntime_errors()) as error:  # type: ignore[misc]
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise StepError(f"onnxruntime fails on inputs {shapes}: {one_line(error)}") from error
    return {name: _encoded(array, str.encode) for name, array in zip(names, outputs, strict=True)}


def prepared_run(session: InferenceSession, inputs: Tensors, wanted: Sequence[str]) -> Callable[[], Any]:
    """A run without arguments: inputs are as onnxruntime takes them, outputs as it gives them."""
    names = list(wanted)
    feed: dict[str, Any] = {name: _encoded(array, bytes.decode) for name, array in inputs.items()}
    if _has_bfloat16(session):
        values = {name: _value(array) for name, array in feed.items()}
        return lambda: session.run_with_ort_values(names, values)
    return lambda: session.run(names, feed)


def _has_bfloat16(session: InferenceSession) -> bool:
    return any(node.type == _BFLOAT16 for node in (*session.get_inputs(), *session.get_outputs()))


def _run_values(session: InferenceSession, names: list[str], feed: Tensors) -> list[np.ndarray[Any, Any]]:
    """Run with onnxruntime's own values, as it takes and gives no numpy array of bfloat16."""
    values = {name: _value(array) for name, array in feed.items()}
    return [_array(value) for value in session.run_with_ort_values(names, values)]


def _value(array: np.ndarray[Any, Any]) -> Any:
    import numpy as np
    from onnxruntime import OrtValue

    if array.dtype == object:
        raise StepError("onnxruntime's Python package cannot pass strings to a model that has bfloat16 tensors, too")
    if datatype_of(array) != BF16:
        return OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view(np.uint16)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, BY_NAME[BF16].onnx)


def _array(value: Any) -> np.ndarray[Any, Any]:
    import ctypes

    import numpy as np

    if value.data_type() != _BFLOAT16:
        plain: np.ndarray[Any, Any] = value.numpy()
        return plain
    shape = value.shape()
    bits = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape)) if math.prod(shape) else b""
    return np.frombuffer(bits, numpy_dtype(BF16)).reshape(shape)


def _encoded(array: np.ndarray[Any, Any], convert: Any) -> np.ndarray[Any, Any]:
    """Convert strings: onnxruntime's are str, ours are bytes, which it would turn into their repr."""
    import numpy as np

    if array.dtype != object:
        return array
    wanted = bytes if convert is bytes.decode else str
    flat = [convert(item) if isinstance(item, wanted) else item for item in array.ravel()]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(array.shape)


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """All its exceptions; Exception is their only common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (getattr(state, name) for name in dir(state))
    return tuple(item for item in found if isinstance(item, type) and issubclass(item, Exception))


def _load_hint(reason: str) -> str:
    if found := _NO_KERNEL.search(reason):
        return (
            f"onnxruntime has no {found[1]} of opset {found[2]} on the CPU for these element types: export with a later"
            " opset, or cast, to float32 for instance"
        )
    if found := _NO_LOCALE.search(reason):
        return (
            f"containers have no locale {found[1]}: set the attribute locale of StringNormalizer to C.UTF-8"
            " (skl2onnx: options={TfidfVectorizer: {'locale': 'C.UTF-8'}})"
        )
    if "Batchwise recurrent operations" in reason:
        return "set the node's attribute layout to 0, with the sequence first: transpose before and after it"
    if "ai.onnx.preview.training" in reason or "ai.onnx.training" in reason:
        return "export the model for inference: a server does not train"
    if "IR version" in reason or "opset" in reason.lower():
        return "export again with a lower opset; `onnxruntime` here must match the target release"
    if "is not a registered function/op" in reason:
        return "name the library that has the operator in serving.model_operations.op_library_filename"
    if "Duplicate definition" in reason:
        return "two tensors share a name: rename the input or output that carries it"
    if "external" in reason.lower():
        return "keep the weights' file beside the model, as a plain file"
    return "export it again; if it came from elsewhere, check it with onnx.checker.check_model"
