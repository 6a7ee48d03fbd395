"""From a function in TensorFlow to an ONNX graph, by tf2onnx."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.steps.tensorflow_program.faults import unsupported
from modelwright.steps.tensorflow_program.function import Function

_LARGEST_BYTES = 2**31 - 2**26  # protobuf writes no message of 2 GiB
_LISTED = 6


def onnx_from_function(function: Function, opset: int, out: Path) -> None:
    """Write the model. Its tensors have the function's names. Raises StepError for operations that ONNX lacks."""
    import tensorflow as tf
    from tf2onnx import tf_loader
    from tf2onnx.convert import _convert_common

    _check_size(function)
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    concrete = function.concrete
    captured = {tensor.name for tensor in concrete.graph.internal_captures}
    given = [tensor for tensor in concrete.inputs if tensor.name not in captured]
    inputs = {tensor.name: name for tensor, name in zip(given, _input_names(concrete, function), strict=True)}
    outputs = {tensor.name: name for name, tensor in _named_outputs(concrete)}
    frozen, tables = tf_loader.from_trackable(function.owner, concrete, [*inputs], [*outputs], False)
    with tf.device("/cpu:0"):
        model, _ = _convert_common(
            frozen,
            name="main",
            continue_on_error=True,  # what is left over is named below, all of it
            opset=opset,
            input_names=[*inputs],
            output_names=[*outputs],
            tensors_to_rename=inputs | outputs,
            initialized_tables=tables,
        )
    _check_operations(model, opset)
    out.write_bytes(model.SerializeToString(deterministic=True))


def _input_names(concrete: Any, function: Function) -> list[str]:
    """The names of a function's inputs, in the order of its graph."""
    import tensorflow as tf

    flat = [item for item in tf.nest.flatten(concrete.structured_input_signature) if isinstance(item, tf.TensorSpec)]
    known = {id(spec): name for name, spec in concrete.structured_input_signature[1].items()}
    return [known.get(id(item), item.name) for item in flat]


def _named_outputs(concrete: Any) -> list[tuple[str, Any]]:
    """(name, tensor of the graph) of each output. TensorFlow sorts the keys of a dict when it flattens one."""
    return list(zip(sorted(concrete.structured_outputs), concrete.outputs, strict=True))


def _check_size(function: Function) -> None:
    variables = getattr(function.concrete, "variables", ())
    size_bytes = sum(int(variable.dtype.size) * int(variable.shape.num_elements()) for variable in variables)
    if size_bytes > _LARGEST_BYTES:
        raise StepError(
            f"it has {size_bytes / 1e9:.1f} GB of weights, and models of TensorFlow are converted up to 2 GB",
            "convert it with tf2onnx --large_model, and serve the result with source.kind onnx",
        )


def _check_operations(model: Any, opset: int) -> None:
    """Name every operation that is still TensorFlow's."""
    left: dict[str, int] = {}
    waiting = [model.graph]
    while waiting:
        for node in waiting.pop().node:
            if not _is_onnx(node, opset):
                left[node.op_type] = left.get(node.op_type, 0) + 1
            waiting += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    if left:
        shown = [f"{name} ({count})" if count > 1 else name for name, count in sorted(left.items())]
        raise StepError(*unsupported(shown[:_LISTED], len(shown) - _LISTED))


def _is_onnx(node: Any, opset: int) -> bool:
    import onnx

    if node.domain == "ai.onnx.ml":
        return bool(onnx.defs.has(node.op_type, node.domain))
    return node.domain in ("", "ai.onnx") and bool(onnx.defs.has(node.op_type, opset, ""))
