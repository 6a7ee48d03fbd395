"""Graphs in INT8, by onnxruntime's quantiser.

graph = prepare(file, scratch, options)       # types known, constants folded, each node with a name
layers = choose(graph, options)               # what will be INT8: see `int8_layers`
int8 = quantise_graph(graph, layers, options, ranges, scratch)
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, one_line
from modelwright.onnx.canonical import EXTERNAL_ABOVE_BYTES, canonicalise, load
from modelwright.onnx.opsets import at_least
from modelwright.onnx.precision import lift_constants
from modelwright.onnx.runtime import optimised_offline
from modelwright.onnx.values import FLOAT, value_types
from modelwright.steps.int8_layers import Layer, all_nodes, followers, operators_of, own_weight, weight_of
from modelwright.variants.techniques.quantise import QuantiseOptions

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    Ranges = Any  # onnxruntime.quantization.calibrate.TensorsData

_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul"}
_LEAST_OPSET = {"dynamic": 11, "static": 10}  # DynamicQuantizeLinear; QuantizeLinear
_PER_CHANNEL_OPSET = 13  # DequantizeLinear with an axis
_GEMM = "_MatMul"  # what onnxruntime adds to the name of a Gemm that it makes a MatMul


def prepare(file: Path, scratch: Path, options: QuantiseOptions, libraries: Sequence[Path] = ()) -> ModelProto:
    """The graph as the quantiser needs it: types known, each node with a name of its own.

    For static INT8 constants are folded, and batch norms into the convolutions before them: onnxruntime fuses nothing
    across Q/DQ nodes later. `libraries` have custom operators. Raises StepError for a graph that cannot become INT8.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given, prepared = scratch / "given.onnx", scratch / "prepared.onnx"
    model = _of_late_opset(load(file), options)
    lift_constants(model)  # the quantiser takes initializers for weights, and nothing else
    _import_domains(model)
    save_temporary(model, given)
    if options.mode == "static":
        # Sums stay beside their products: as a Gemm they would have another name than in the file.
        given = optimised_offline(given, scratch / "folded.onnx", "basic", libraries, without=["MatMulAddFusion"])
    with _library_errors("onnxruntime cannot prepare the graph"):
        quant_pre_process(
            str(given),
            str(prepared),
            skip_optimization=True,  # without symbolic shapes it throws the optimised graph away
            skip_symbolic_shape=True,  # it gives up on shapes that depend on values; types are what matters
            save_as_external_data=is_large(model),
            all_tensors_to_one_file=True,
        )
    model = canonicalise(onnx.load(prepared))
    if quantised := sorted({node.op_type for node in model.graph.node} & _QUANTISED):
        raise StepError(f"the graph is INT8 already: it has {', '.join(quantised)}", "take quantise out of its steps")
    _import_domains(model)
    _add_types(model, scratch, libraries)
    if options.mode == "dynamic":
        _separate_gemms(model)
    return model


def quantise_graph(
    model: ModelProto, layers: Collection[Layer], options: QuantiseOptions, ranges: Ranges | None, scratch: Path
) -> ModelProto:
    """The graph with these layers in INT8. `ranges` of activations are needed in mode static.

    The model stays as it is.
    """
    operators = sorted({layer.operator for layer in layers})
    with _library_errors(f"onnxruntime cannot quantise {', '.join(operators)}"):
        dynamic = options.mode == "dynamic"
        made = _dynamic(model, layers, options, scratch) if dynamic else _static(model, layers, options, ranges)
    _import_domains(made)
    return made


def is_large(model: ModelProto) -> bool:
    """Whether a file of it needs external weights."""
    return int(model.ByteSize()) > EXTERNAL_ABOVE_BYTES


def save_temporary(model: ModelProto, file: Path) -> None:
    """Write a graph that a session is made of, with external weights where it is large. The model stays as it is."""
    import onnx

    weights = file.with_name(f"{file.name}.data")
    weights.unlink(missing_ok=True)  # onnx appends to what is there
    if not is_large(model):
        onnx.save(model, file)
        return
    copied = type(model)()
    copied.CopyFrom(model)  # onnx moves the weights out of what it saves
    onnx.save(copied, file, save_as_external_data=True, location=weights.name)


def _dynamic(model: ModelProto, layers: Collection[Layer], options: QuantiseOptions, scratch: Path) -> ModelProto:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    file = scratch / "dynamic.onnx"
    file.with_name(f"{file.name}.data").unlink(missing_ok=True)
    quantize_dynamic(
        model,
        file,
        # A Gemm becomes a MatMul and an Add first.
        op_types_to_quantize=sorted({"MatMul" if layer.operator == "Gemm" else layer.operator for layer in layers}),
        nodes_to_quantize=[layer.name + (_GEMM if layer.operator == "Gemm" else "") for layer in layers],
        per_channel=options.per_channel,
        reduce_range=options.reduce_range,
        weight_type=QuantType.QInt8,  # with UINT8 weights, x86 kernels do not use VNNI
        use_external_data_format=is_large(model),
        extra_options={"MatMulConstBOnly": True},
    )
    return onnx.load(file)


def _static(model: ModelProto, layers: Collection[Layer], options: QuantiseOptions, ranges: Ranges) -> ModelProto:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    symmetric = options.activations == "symmetric"
    quantiser = QDQQuantizer(
        model,
        per_channel=options.per_channel,
        reduce_range=options.reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[*(layer.name for layer in layers), *followers(model)],
        nodes_to_exclude=[],
        op_types_to_quantize=operators_of(layers),
        extra_options={
            "ActivationSymmetric": symmetric,
            "MatMulConstBOnly": True,
            "QuantizeBias": not symmetric,  # TensorRT keeps them in float
        },
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    made: ModelProto = quantiser.model.model
    _keep_scores_in_float(made.graph, model.graph)
    return made


def _keep_scores_in_float(graph: GraphProto, plain: GraphProto) -> None:
    """Take away Q and DQ after a layer whose answer leaves the graph: 256 values are few for a score, and onnxruntime
    fuses a MatMul or Gemm with INT8 inputs and a float answer as well.

    `plain` is the graph in float: where a Relu stands after the layer there, the range of Q takes its place here.
    """
    scores = {name for node in plain.node if node.op_type in ("MatMul", "Gemm") for name in node.output}
    made_by = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        dequantise = made_by.get(output.name)
        if output.name not in scores or dequantise is None or dequantise.op_type != "DequantizeLinear":
            continue
        quantise = made_by.get(dequantise.input[0])
        if quantise is None or quantise.op_type != "QuantizeLinear":
            continue
        layer = made_by.get(quantise.input[0])
        if layer is None or layer.op_type not in ("MatMul", "Gemm"):
            continue
        given, other = quantise.input[0], [node for node in graph.node if node not in (quantise, dequantise)]
        if any(name in (given, quantise.output[0], output.name) for node in other for name in node.input):
            continue
        graph.node.remove(quantise)
        graph.node.remove(dequantise)
        layer.output[list(layer.output).index(given)] = output.name


def _separate_gemms(model: ModelProto) -> None:
    """Weights of its own for each Gemm: mode dynamic makes it a MatMul, and transposes the weights where they lie."""
    for node in model.graph.node:
        if node.op_type == "Gemm" and weight_of(model, node):
            own_weight(model, node, 1)


def _of_late_opset(model: ModelProto, options: QuantiseOptions) -> ModelProto:
    """The graph in the opset that INT8 needs, or a later one. Raises StepError where it cannot be converted."""
    least = _LEAST_OPSET[options.mode]
    needed = max(least, _PER_CHANNEL_OPSET) if options.mode == "static" and options.per_channel else least
    converted = at_least(model, needed)
    opset = next(item.version for item in converted.opset_import if item.domain in ("", "ai.onnx"))
    if opset < needed:
        other = "; or set per_channel: false" if opset >= least else ""
        message = f"its opset is {opset}, mode {options.mode} needs {needed}, and ONNX cannot convert the graph"
        raise StepError(message, f"export it with opset {needed} or later{other}")
    return converted


def _add_types(model: ModelProto, scratch: Path, libraries: Sequence[Path]) -> None:
    """Write down the float32 tensors whose types onnxruntime knows and ONNX does not: those of operators that are not
    ONNX's, and what follows from them. The quantiser passes over a tensor without a type."""
    from onnx import TensorProto, helper

    graph = model.graph
    typed = {item.name for item in (*graph.value_info, *graph.input, *graph.output)}
    untyped = {name for node in graph.node for name in node.output if name} - typed
    if untyped:
        types = value_types(model, scratch, libraries)
        floats = sorted(name for name in untyped if types.get(name) == FLOAT)
        graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in floats)


def _import_domains(model: ModelProto) -> None:
    """Import the operator sets that nodes use, and no others: onnxruntime writes all that it knows, and takes a graph
    that lacks one of its own."""
    from onnx import helper

    used = {node.domain for node in all_nodes(model)} - {"ai.onnx"}
    versions = {"" if item.domain == "ai.onnx" else item.domain: item.version for item in model.opset_import}
    kept = {"": versions[""], **{domain: versions.get(domain, 1) for domain in sorted(used - {""})}}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in kept.items())


@contextlib.contextmanager
def _library_errors(what: str) -> Iterator[None]:
    """What the quantiser raises for a graph that it cannot work with; it has no exceptions of its own."""
    try:
        yield
    except StepError:
        raise
    except (AssertionError, KeyError, ValueError, RuntimeError, OSError, TypeError) as error:
        reason = one_line(error) or type(error).__name__
        hint = "leave the node out (exclude: [its name]); its tensors may be of types that could not be inferred"
        raise StepError(f"{what}: {reason}", hint) from error
