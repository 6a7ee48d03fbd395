"""A float32 graph that computes in half precision: FP16 or BF16, where that is safe, and float32 elsewhere.

Types are part of the graph, as TensorRT 10 and 11 and onnxruntime take them: there is a Cast wherever the precision
changes. A tensor of float32 keeps its name; the same tensor in half precision has another one, `name.fp16`.

    lowered = lower(model, FP16, types)      # model: canonical, so that each node has a name
    lowered.kept                             # {"node_softmax": "Softmax is sensitive to rounding", …}

What a node may compute in is read from onnxruntime's own operator schemas. Libraries were tried first, on 38 real
models: onnxruntime.transformers.float16, onnxconverter-common and NVIDIA's AutoCast gave graphs that do not load for
13, 19 and 12 of them, because of graphs inside nodes, mixed types, operators of ai.onnx.ml and dynamic quantisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from modelwright.onnx.operators import Operator, operator, opsets
from modelwright.onnx.values import FLOAT

if TYPE_CHECKING:
    import numpy as np
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

    Array = np.ndarray[Any, Any]

PrecisionName = Literal["fp16", "bf16"]


@dataclass(frozen=True)
class Precision:
    """A half-precision type, and the positive numbers that it can hold."""

    name: PrecisionName
    label: str  # "FP16", in messages
    type: str  # as onnxruntime names it
    elem_type: int  # onnx.TensorProto.DataType
    largest: float
    smallest: float  # the smallest with all its digits


FP16 = Precision("fp16", "FP16", "tensor(float16)", 10, largest=65504.0, smallest=2.0**-14)
BF16 = Precision("bf16", "BF16", "tensor(bfloat16)", 16, largest=3.3895e38, smallest=2.0**-126)

# No quantity that a network computes: torch masks attention with float32's smallest number, others with -1e30 or so.
AS_GOOD_AS_INFINITE = 1e30

# What loses most by rounding: sums of many values, exponentials, and what picks one of several.
SENSITIVE = frozenset({
    "Softmax", "LogSoftmax", "Exp", "Log", "Pow", "CumSum", "TopK", "RoiAlign", "GridSample", "InstanceNormalization",
    "MeanVarianceNormalization", "LpNormalization", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "GlobalLpPool", "LpPool", "DFT", "STFT",
    "MelWeightMatrix",
})  # fmt: skip
_INTEGER = frozenset({
    "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "QLinearConv",
})  # fmt: skip
_TYPED_BY_ATTRIBUTE = frozenset({"Cast"})  # the type of the output does not depend on the input
# What gains by half precision. All else computes in the precision that its inputs have, so that no Cast is needed.
_HEAVY = frozenset({
    "MatMul", "Gemm", "Conv", "ConvTranspose", "DeformConv", "Einsum", "LSTM", "GRU", "RNN", "Attention",
    "FusedMatMul", "FusedGemm", "FusedConv", "MultiHeadAttention", "PackedMultiHeadAttention", "GroupQueryAttention",
    "QAttention", "GemmFastGelu", "ConvTransposeWithDynamicPads",
})  # fmt: skip


# Operators that onnxruntime's CUDA provider has in BF16, of the last opset (docs/OperatorKernels.md of onnxruntime).
# Nothing else can run the others in BF16 there: the CPU, to which it falls back, cannot either.
_CUDA_BF16 = frozenset({
    "Abs", "Add", "Attention", "AveragePool", "BiasGelu", "Cast", "Compress", "Concat", "Conv", "Div", "Dropout",
    "Erf", "Exp", "Expand", "FastGelu", "Flatten", "FusedMatMul", "Gather", "GatherElements", "GatherND", "Gelu",
    "Gemm", "GroupQueryAttention", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LayerNormalization",
    "MatMul", "MatMulNBits", "Max", "Min", "Mod", "Mul", "MultiHeadAttention", "Neg", "Pow", "QuickGelu",
    "RMSNormalization", "ReduceSum", "Relu", "Reshape", "ReverseSequence", "RotaryEmbedding", "ScatterElements",
    "ScatterND", "Shape", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "Size", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile",
    "Transpose", "Trilu", "Unsqueeze", "Where",
})  # fmt: skip


@dataclass
class Lowered:
    model: ModelProto
    precision: Precision
    names: dict[str, str]  # float32 tensor → the same in half precision
    nodes: tuple[str, ...]  # that compute in half precision
    kept: dict[str, str] = field(default_factory=dict)  # node that could, and stays in float32 → why


def lower(
    model: ModelProto,
    precision: Precision,
    types: Mapping[str, str],
    keep: Mapping[str, str] = {},
    *,
    on_cuda: bool = False,
) -> Lowered:
    """A copy of a canonical model that computes in half precision. Inputs and outputs keep their types.

    `types` are those of `values.value_types`. `keep` names nodes that stay in float32, and says why. `on_cuda`: only
    operators that onnxruntime's CUDA provider has in this precision.
    """
    from onnx import ModelProto

    copy = ModelProto()
    copy.CopyFrom(model)
    return _Conversion(copy, precision, types, keep, _CUDA_BF16 if on_cuda and precision is BF16 else None).run()


def why_nothing(model: ModelProto, lowered: Lowered, types: Mapping[str, str]) -> str:
    """Why no node of a graph computes in half precision."""
    label = lowered.precision.label
    nodes = list(model.graph.node)
    for node in nodes:
        if node.op_type in _HEAVY and node.name in lowered.kept:
            reason = lowered.kept[node.name]
            return f"all that could compute in {label} stays in float32: {node.name}: {reason}"
    inside = [node.name for node in nodes if any(_inner(node, _HEAVY))]
    if inside:
        return f"what could compute in {label} lies inside {', '.join(inside[:3])}: only the main graph is converted"
    if any(node.op_type in _HEAVY and types.get(node.input[0]) == lowered.precision.type for node in nodes):
        return f"the model computes in {label} already"
    names = sorted({node.op_type for node in nodes})
    integer = [name for name in names if name in _INTEGER]
    if integer:
        return f"its products are of INT8, which take float32 only ({', '.join(integer)})"
    return f"none of its operators gains by {label}: {', '.join(names[:6])}{', …' if len(names) > 6 else ''}"


def lift_constants(model: ModelProto) -> None:
    """Make weights of the main graph's Constant nodes, in place: they are then converted as weights are."""
    graph = model.graph
    outputs = {output.name for output in graph.output}
    kept = []
    for node in graph.node:
        tensor = _constant(node) if node.op_type == "Constant" and node.output[0] not in outputs else None
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    replace_items(graph.node, kept)


class _Conversion:
    def __init__(
        self,
        model: ModelProto,
        precision: Precision,
        types: Mapping[str, str],
        keep: Mapping[str, str],
        operators: frozenset[str] | None,
    ) -> None:
        self._model = model
        self._precision = precision
        self._types = dict(types)
        self._keep = keep
        self._operators = operators  # that may compute in half precision; None: all that take it
        self._opsets = opsets(model)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._low: set[str] = set()  # float32 tensors that exist in half precision first: their nodes compute in it
        self._kept: dict[str, str] = {}
        self._names: dict[str, str] = {}  # float32 tensor → the name that it has in half precision

    def run(self) -> Lowered:
        slots = {node.name: self._lowered_slots(node) for node in self._model.graph.node}
        chosen = {name: found for name, found in slots.items() if found is not None}
        self._rewrite(chosen)
        return Lowered(self._model, self._precision, self._names, tuple(chosen), self._kept)

    # ---- which nodes

    def _lowered_slots(self, node: NodeProto) -> tuple[frozenset[int], frozenset[int]] | None:
        """(inputs, outputs) that become half precision; None for a node that stays as it is."""
        schema = operator(node, self._opsets)
        if schema is None or any(_graphs_of(node)) or node.op_type not in (self._operators or {node.op_type}):
            return None
        inputs = tuple(schema.input_types(len(node.input)))
        outputs = tuple(schema.output_types(len(node.output)))
        variables = self._variables(node, schema, inputs)
        taken = frozenset(i for i, variable in enumerate(inputs) if variable in variables and node.input[i])
        given = frozenset(i for i, variable in enumerate(outputs) if self._follows(node, i, variable, variables))
        if not taken or not self._outputs_are_known(node, outputs, given):
            return None
        if reason := self._reason_to_keep(node, taken):
            self._kept[node.name] = reason
            return None
        if node.op_type not in _HEAVY and not self._has_low_input(node, taken):
            return None
        self._low.update(node.output[index] for index in given)
        return taken, given

    def _variables(self, node: NodeProto, schema: Operator, inputs: tuple[str, ...]) -> frozenset[str]:
        """The type variables of a node that stand for float32 now, and may stand for half precision."""
        bound: dict[str, set[str]] = {}
        for name, variable in zip(node.input, inputs, strict=True):
            if name:
                bound.setdefault(variable, set()).add(self._types.get(name, ""))
        allowed = self._precision.type
        return frozenset(
            variable
            for variable, types in bound.items()
            if types == {FLOAT} and allowed in schema.types.get(variable, ())
        )

    def _follows(self, node: NodeProto, index: int, variable: str, variables: frozenset[str]) -> bool:
        """Whether an output becomes half precision with the inputs."""
        if not node.output[index] or self._types.get(node.output[index]) != FLOAT:
            return False
        return variable in variables or (variable == "T3" and _has_type_of_scale(node))

    def _outputs_are_known(self, node: NodeProto, outputs: tuple[str, ...], given: frozenset[int]) -> bool:
        """Whether the type of each other float32 output stays what it is."""
        return node.op_type in _TYPED_BY_ATTRIBUTE or all(
            index in given or variable == FLOAT or self._types.get(name) != FLOAT
            for index, (name, variable) in enumerate(zip(node.output, outputs, strict=True))
            if name
        )

    def _reason_to_keep(self, node: NodeProto, taken: frozenset[int]) -> str:
        if reason := self._keep.get(node.name, ""):
            return reason
        if node.op_type in SENSITIVE:
            return f"{node.op_type} is sensitive to rounding"
        for index in sorted(taken):
            weight = self._weights.get(node.input[index])
            if weight is not None and (reason := constant_problem(weight, self._precision)):
                return f"its constant '{weight.name}' {reason}"
        return ""

    def _has_low_input(self, node: NodeProto, taken: frozenset[int]) -> bool:
        computed = [node.input[index] for index in taken if node.input[index] not in self._weights]
        return not computed or any(name in self._low for name in computed)

    # ---- the graph

    def _rewrite(self, chosen: Mapping[str, tuple[frozenset[int], frozenset[int]]]) -> None:
        graph = self._model.graph
        wanted_low, wanted_float = self._wanted(chosen)
        nodes: list[NodeProto] = []
        for value in graph.input:
            nodes += self._casts(value.name, wanted_low, wanted_float)
        for name in sorted(wanted_low & self._weights.keys()):
            self._add_low_weight(self._weights[name])
        for node in graph.node:
            taken, given = chosen.get(node.name, (frozenset(), frozenset()))
            made = [name for name in node.output if name]
            for index in taken:
                node.input[index] = self._low_name(node.input[index])
            for index in given:
                node.output[index] = self._low_name(node.output[index])
            nodes.append(node)
            for name in made:
                nodes += self._casts(name, wanted_low, wanted_float)
        unused = wanted_low & self._weights.keys() - wanted_float
        keep = [tensor for tensor in graph.initializer if tensor.name not in unused]
        replace_items(graph.initializer, keep)
        replace_items(graph.node, nodes)
        del graph.value_info[:]  # of the types before

    def _wanted(self, chosen: Mapping[str, tuple[frozenset[int], frozenset[int]]]) -> tuple[set[str], set[str]]:
        """The tensors that are read in half precision, and those that are read in float32."""
        low: set[str] = set()
        full: set[str] = set()
        for node in self._model.graph.node:
            taken = chosen.get(node.name, (frozenset(), frozenset()))[0]
            for index, name in enumerate(node.input):
                (low if index in taken else full).add(name)
            full.update(_names_inside(node))
        full.update(output.name for output in self._model.graph.output)
        return low, full

    def _casts(self, name: str, wanted_low: set[str], wanted_float: set[str]) -> Iterator[NodeProto]:
        """The Cast that makes the other form of a tensor, right after what makes the tensor, if anything reads it."""
        from onnx import TensorProto

        if name in self._low and name in wanted_float:
            yield cast(self._low_name(name), name, TensorProto.FLOAT)
        elif name not in self._low and name in wanted_low:
            yield cast(name, self._low_name(name), self._precision.elem_type)

    def _add_low_weight(self, tensor: TensorProto) -> None:
        import numpy as np
        from onnx import numpy_helper

        array = numpy_helper.to_array(tensor)
        mask = np.isfinite(array) & (np.abs(array) >= AS_GOOD_AS_INFINITE)
        # Half of the largest number: something may be added to it, and a row of infinities has no softmax.
        array = np.where(mask, np.sign(array) * self._precision.largest / 2, array)
        low = numpy_helper.from_array(array.astype(self._numpy_type()), self._low_name(tensor.name))
        self._model.graph.initializer.append(low)

    def _numpy_type(self) -> Any:
        from onnx import helper

        return helper.tensor_dtype_to_np_dtype(self._precision.elem_type)

    # ---- names

    def _low_name(self, name: str) -> str:
        if name not in self._names:
            used = self._types.keys() | set(self._names.values())
            base = f"{name}.{self._precision.name}"
            wanted, number = base, 1
            while wanted in used:
                wanted, number = f"{base}.{number}", number + 1
            self._names[name] = wanted
        return self._names[name]


def constant_problem(tensor: TensorProto, precision: Precision) -> str:
    """Why half precision cannot hold a weight; '' where it can. What is as good as infinite does not count."""
    import numpy as np
    from onnx import numpy_helper

    sizes = np.abs(numpy_helper.to_array(tensor))
    largest = float(sizes[sizes < AS_GOOD_AS_INFINITE].max(initial=0.0))
    if largest > precision.largest:
        return f"reaches {largest:.1e}, {precision.label} ends at {precision.largest:.6g}"
    if 0.0 < largest < precision.smallest:
        return f"is {largest:.1e} at most, too small for {precision.label}"
    return ""


def _has_type_of_scale(node: NodeProto) -> bool:
    """From opset 23 on DequantizeLinear has a type variable for its output, which is the scale's type by default."""
    return node.op_type == "DequantizeLinear" and not any(item.name == "output_dtype" for item in node.attribute)


def _graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs inside a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _inner(node: NodeProto, operators: frozenset[str]) -> Iterator[NodeProto]:
    """The nodes of these operators inside a node, at any depth."""
    for graph in _graphs_of(node):
        for inner in graph.node:
            if inner.op_type in operators:
                yield inner
            yield from _inner(inner, operators)


def _names_inside(node: NodeProto) -> Iterator[str]:
    """All that the graphs inside a node read, at any depth: what they take from outside is among it."""
    for graph in _graphs_of(node):
        yield from (output.name for output in graph.output)
        for inner in graph.node:
            yield from inner.input
            yield from _names_inside(inner)


def cast(source: str, target: str, elem_type: int) -> NodeProto:
    from onnx import helper

    node: NodeProto = helper.make_node("Cast", [source], [target], to=elem_type)
    return node


def _constant(node: NodeProto) -> TensorProto | None:
    """The float32 tensor of a Constant node."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            tensor = TensorProto()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
            return tensor
        if attribute.name in ("value_float", "value_floats"):
            values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            made: TensorProto = numpy_helper.from_array(np.array(values, np.float32), node.output[0])
            return made
    return None


def replace_items(field_: Any, items: Iterable[Any]) -> None:
    """Give a repeated field other items. They are copied first: a message that leaves its parent is gone."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field_[:]
    field_.extend(copies)
