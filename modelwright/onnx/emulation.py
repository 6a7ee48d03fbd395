"""A half-precision graph as a float32 one that rounds: the same values, where onnxruntime cannot compute them.

onnxruntime's CPU has no arithmetic in BF16, and computes FP16 in float32, where nothing overflows. In the emulation
each tensor of half precision is a float32 one that holds a rounded value: an operator takes rounded values, computes in
float32, and its result is rounded. That is what a GPU does, but for the order of its sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelwright.onnx.precision import Lowered, Precision, cast, replace_items

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def emulated(lowered: Lowered) -> ModelProto:
    """A new model, whose tensors have the names that they have in the lowered one."""
    from onnx import ModelProto, numpy_helper

    low = set(lowered.names.values())
    model = ModelProto()
    model.CopyFrom(lowered.model)
    graph = model.graph
    weights = []
    for tensor in graph.initializer:
        if tensor.name in low:
            tensor = numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name)
        weights.append(tensor)
    replace_items(graph.initializer, weights)
    replace_items(graph.node, [item for node in graph.node for item in _rounded(node, low, lowered.precision)])
    return model


def _rounded(node: NodeProto, low: set[str], precision: Precision) -> Iterator[NodeProto]:
    """A node, and what rounds each of its outputs that is of half precision."""
    from onnx import TensorProto

    rounding = []
    for index, name in enumerate(node.output):
        if name in low:
            exact, half = f"{name}.exact", f"{name}.half"
            node.output[index] = exact
            rounding += [cast(exact, half, precision.elem_type), cast(half, name, TensorProto.FLOAT)]
    for attribute in node.attribute:
        if node.op_type == "Cast" and rounding and attribute.name == "to":
            attribute.i = TensorProto.FLOAT  # what it casts to is what rounding does
    yield node
    yield from rounding
