"""SmoothQuant: some of the range of activations moves into the weights, so that both fit into 8 bits.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2022,
https://arxiv.org/abs/2211.10438, equations 3 and 4: with X (rows, channels) and W (channels, outputs),
X W = (X / s) (s W), where for each channel s = max|X|^alpha / max|W|^(1 - alpha). Layers that are given the same X
share one s. X / s is a Mul of its own: folded into a LayerNormalization it would change the residual beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.onnx.runtime import load_session
from modelwright.steps.int8 import save_temporary
from modelwright.steps.int8_layers import Layer, own_weight
from modelwright.triton.tensors import Tensors

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto, NodeProto, TensorProto

    Array = np.ndarray[Any, Any]

_LEAST = 1e-5  # of a channel that is always zero


def channel_maxima(
    model: ModelProto, layers: Iterable[Layer], feeds: Iterable[Tensors], scratch: Path, libraries: Iterable[Path] = ()
) -> dict[str, Array]:
    """{activation: the largest magnitude of each channel} of what MatMul and Gemm layers are given."""
    import numpy as np

    wanted = _smoothable(model, layers)
    maxima: dict[str, Array] = {}
    if not wanted:
        return maxima
    outputs = {f"{name}/largest": name for name in wanted}
    session = load_session(_with_maxima(model, wanted, scratch), graph_level=2, libraries=libraries)
    for feed in feeds:
        for output, largest in zip(outputs, session.run(list(outputs), feed), strict=True):
            name = outputs[output]
            maxima[name] = np.maximum(maxima[name], largest) if name in maxima else largest
    return maxima


def smoothed(model: ModelProto, layers: Iterable[Layer], maxima: Mapping[str, Array], alpha: float) -> ModelProto:
    """A copy of the graph that computes the same, with activations of a smaller range before these layers."""
    import numpy as np
    from onnx import helper, numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    graph, before = made.graph, {}
    for name, nodes in _smoothable(made, layers).items():
        tensors = [_tensor(made, own_weight(made, node, 1)) for node in nodes]
        weights = [
            _by_channel(node, numpy_helper.to_array(tensor)) for node, tensor in zip(nodes, tensors, strict=True)
        ]
        largest = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
        scale = np.maximum(maxima[name], _LEAST) ** alpha / np.maximum(largest, _LEAST) ** (1 - alpha)
        scale = np.maximum(scale, _LEAST).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array((1 / scale).astype(np.float32), f"{name}/smooth"))
        multiplied = helper.make_node("Mul", [name, f"{name}/smooth"], [f"{name}/smoothed"], f"{name}/smooth")
        before[nodes[0].name] = multiplied
        for node, tensor, weight in zip(nodes, tensors, weights, strict=True):
            scaled = np.ascontiguousarray(_by_channel(node, weight * scale[:, None]))
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
            node.input[0] = f"{name}/smoothed"
    nodes = [item for node in graph.node for item in ((before[node.name], node) if node.name in before else (node,))]
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return made


def _smoothable(model: ModelProto, layers: Iterable[Layer]) -> dict[str, list[NodeProto]]:
    """{activation: the layers that multiply it with a matrix of their own}."""
    wanted = {layer.name for layer in layers}
    ranks = {item.name: len(item.dims) for item in model.graph.initializer}
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.name not in wanted or node.op_type not in ("MatMul", "Gemm"):
            continue
        if ranks.get(node.input[1]) == 2 and node.input[0] not in ranks and not _attribute(node, "transA"):
            found.setdefault(node.input[0], []).append(node)
    return found


def _tensor(model: ModelProto, name: str) -> TensorProto:
    return next(item for item in model.graph.initializer if item.name == name)


def _by_channel(node: NodeProto, weight: Array) -> Array:
    """A weight as (channels, outputs), and back."""
    return weight.T if _attribute(node, "transB") else weight


def _attribute(node: NodeProto, name: str) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), 0)


def _with_maxima(model: ModelProto, wanted: Mapping[str, Sequence[NodeProto]], scratch: Path) -> Path:
    """The graph with an output more for each activation: its largest magnitudes, channel by channel."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    sizes = {item.name: item.dims for item in graph.initializer}
    axes_are_input = next(item.version for item in made.opset_import if item.domain in ("", "ai.onnx")) >= 18
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "largest/axes"))
    for name, nodes in wanted.items():
        channels = sizes[nodes[0].input[1]][1 if _attribute(nodes[0], "transB") else 0]
        rows, magnitudes, output = f"{name}/rows", f"{name}/magnitudes", f"{name}/largest"
        graph.initializer.append(numpy_helper.from_array(np.array([-1, channels], np.int64), f"{name}/shape"))
        reduce = (
            helper.make_node("ReduceMax", [magnitudes, "largest/axes"], [output], keepdims=0)
            if axes_are_input
            else helper.make_node("ReduceMax", [magnitudes], [output], keepdims=0, axes=[0])
        )
        graph.node.extend(
            [
                helper.make_node("Reshape", [name, f"{name}/shape"], [rows]),
                helper.make_node("Abs", [rows], [magnitudes]),
                reduce,
            ]
        )
        graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [channels]))
    file = scratch / "maxima.onnx"
    save_temporary(made, file)
    return file
