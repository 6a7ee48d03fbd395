"""Which nodes of a graph onnxruntime's quantiser can make INT8.

A *layer* is a node with weights, or one that computes with the values of two tensors, such as an Add between
convolutions. Other nodes, such as a Relu, follow: they work on INT8 where what they are given is INT8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelwright.errors import StepError
from modelwright.suggest import did_you_mean
from modelwright.variants.techniques.quantise import QuantiseOptions

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# Operator → its input that is a weight: without one there is nothing to make smaller and little to make faster.
_WEIGHTS = {
    "MatMul": 1,
    "Gemm": 1,
    "Conv": 1,
    "ConvTranspose": 1,
    "Gather": 0,
    "LSTM": 1,
    "Attention": 1,
    "EmbedLayerNormalization": 2,
}
_DEFAULT = {
    "dynamic": ("MatMul", "Gemm", "Gather", "LSTM", "Attention", "EmbedLayerNormalization"),
    "static": ("Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"),
}
# onnxruntime's ConvInteger is slow: convolutions are for mode static, unless `only` asks for them.
_POSSIBLE = {
    "dynamic": (*_DEFAULT["dynamic"], "Conv"),
    "static": (
        *_DEFAULT["static"],
        *("Add", "Mul", "Concat", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax", "Where"),
        *("InstanceNormalization", "LayerNormalization"),
    ),
}
# Between convolutions, so that activations stay INT8 from one to the next. In a transformer the same operators carry
# the residual stream, which 8 bits are too few for.
_BETWEEN_CONVOLUTIONS = ("Add", "Mul", "Concat", "GlobalAveragePool", "LeakyRelu")
_FOLLOW = (
    *("Relu", "Clip", "MaxPool", "AveragePool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"),
    *("Slice", "Pad", "Resize", "Split"),
)
_HALVES = (10, 16)  # TensorProto.FLOAT16, BFLOAT16


@dataclass(frozen=True)
class Layer:
    """A node that can be INT8 or stay in float."""

    name: str
    operator: str


def choose(model: ModelProto, options: QuantiseOptions) -> list[Layer]:
    """The nodes that become INT8, in the order of the graph. Raises StepError for none, and for unknown names."""
    possible = [node for node in model.graph.node if _is_possible(node, model, options)]
    for field, wanted in (("only", options.only), ("exclude", options.exclude)):
        _check_names(field, wanted, model, possible, options)
    if options.only:
        chosen = [node for node in possible if _is_named(node, options.only)]
    else:
        operators = {*_DEFAULT[options.mode]}
        if options.mode == "static" and any(node.op_type in ("Conv", "ConvTranspose") for node in possible):
            operators |= {*_BETWEEN_CONVOLUTIONS}
        chosen = [node for node in possible if node.op_type in operators]
    layers = [Layer(node.name, node.op_type) for node in chosen if not _is_named(node, options.exclude)]
    if not any(layer.operator in _WEIGHTS for layer in layers) and not options.only:
        raise _nothing(model, options, excluded=bool(chosen))
    if not layers:
        raise _nothing(model, options, excluded=True)
    return layers


def operators_of(layers: Collection[Layer]) -> list[str]:
    """The operator types whose tensors become INT8 with these layers."""
    return [*sorted({layer.operator for layer in layers}), *_FOLLOW]


def followers(model: ModelProto) -> list[str]:
    """The names of nodes that work on INT8 where what they are given is INT8."""
    return [node.name for node in model.graph.node if node.op_type in _FOLLOW]


def weight_of(model: ModelProto, node: NodeProto) -> str | None:
    """The name of the node's weight, if it has one in float32."""
    from onnx import TensorProto

    index = _WEIGHTS.get(node.op_type)
    if index is None or index >= len(node.input):
        return None
    name = node.input[index]
    known = (item.name for item in model.graph.initializer if item.data_type == TensorProto.FLOAT)
    return name if name in known else None


def own_weight(model: ModelProto, node: NodeProto, index: int) -> str:
    """The name of the node's weight, after a copy was made where another node uses it, too."""
    name = str(node.input[index])
    uses = sum(name == given for other in all_nodes(model) for given in other.input)
    if uses < 2:
        return name
    weight = next(item for item in model.graph.initializer if item.name == name)
    copied = model.graph.initializer.add()
    copied.CopyFrom(weight)
    copied.name = f"{name}/{node.name}"
    node.input[index] = copied.name
    return str(copied.name)


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Those of the graphs inside nodes, and of functions, as well."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            inner = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
            waiting += [node for graph in inner for node in graph.node]


def _is_possible(node: NodeProto, model: ModelProto, options: QuantiseOptions) -> bool:
    if node.op_type not in _POSSIBLE[options.mode]:
        return False
    if node.op_type == "Gemm" and options.mode == "dynamic" and not _is_plain(node):
        return False
    return weight_of(model, node) is not None if node.op_type in _WEIGHTS else _is_float(model, node)


def _is_float(model: ModelProto, node: NodeProto) -> bool:
    """Whether what it makes is of float32; sizes and indices are added, too."""
    from onnx import TensorProto

    known = {item.name: item.type.tensor_type.elem_type for item in (*model.graph.value_info, *model.graph.output)}
    return bool(known.get(node.output[0]) == TensorProto.FLOAT)


def _is_plain(gemm: NodeProto) -> bool:
    """Whether it is a MatMul and an Add, the weights transposed or not."""
    given = {attribute.name: attribute for attribute in gemm.attribute}
    factors = [given[name].f for name in ("alpha", "beta") if name in given]
    return all(factor == 1 for factor in factors) and not ("transA" in given and given["transA"].i)


def _is_named(node: NodeProto, names: Collection[str]) -> bool:
    return node.name in names or node.op_type in names


def _check_names(
    field: str, wanted: Iterable[str], model: ModelProto, possible: Sequence[NodeProto], options: QuantiseOptions
) -> None:
    known = {name for node in model.graph.node for name in (node.name, node.op_type)}
    usable = {name for node in possible for name in (node.name, node.op_type)}
    for name in wanted:
        if name not in known:
            raise StepError(f"{field}: the graph has no node and no operator '{name}'", did_you_mean(name, known))
        if field == "only" and name not in usable:
            operators = sorted(_POSSIBLE[options.mode])
            raise StepError(
                f"{field}: '{name}' cannot be quantised in mode {options.mode}",
                f"it takes {', '.join(operators)}, those with weights where these are in float32",
            )


def _nothing(model: ModelProto, options: QuantiseOptions, *, excluded: bool) -> StepError:
    if excluded:
        return StepError("only and exclude leave nothing to quantise", "take names out of exclude")
    counts = Counter(node.op_type for node in model.graph.node)
    found = ", ".join(f"{count} {operator}" for operator, count in counts.most_common(6)) or "no nodes"
    message = (
        f"nothing to quantise: mode {options.mode} takes {', '.join(_DEFAULT[options.mode])} with weights in float32"
    )
    if options.mode == "dynamic" and "Conv" in counts:
        return StepError(f"{message}; the graph has {found}", "mode: static quantises convolutions")
    half = any(item.data_type in _HALVES for item in model.graph.initializer)
    hint = "write quantise before fp16 and bf16 in steps" if half else "leave quantise out of its steps"
    return StepError(f"{message}; the graph has {found}{', and weights in half precision' if half else ''}", hint)
