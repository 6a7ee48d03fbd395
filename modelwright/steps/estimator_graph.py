"""The graph of a converter, with the inputs and outputs that model.yaml declares.

A converter takes one table, or one column an input, and has names of its own for what it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError
from modelwright.onnx.canonical import rename_values
from modelwright.project.spec import OutputSpec, TensorSpec
from modelwright.steps.estimator_check import GraphAnswer
from modelwright.triton.dtypes import BY_NAME, BY_ONNX

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_ROWS = "batch"
_CASTS = ({"FP32", "FP64"}, {"INT32", "INT64"})
_OPSET = 9  # of the operators that this module adds: later ones have the same form of them


@dataclass(frozen=True)
class Produced:
    """An output of the converter's graph, and the method of the estimator that gives the same."""

    name: str
    method: str


def finish(
    model: ModelProto,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[OutputSpec],
    produced: Sequence[Produced],
    columns: Sequence[str],
    where: str,
) -> tuple[GraphAnswer, ...]:
    """Give the graph the declared tensors, in place. `columns`: the names that one declared tensor is split into."""
    _one_import_a_domain(model)
    _free_names(model, {spec.name for spec in (*inputs, *outputs)})
    answers = _outputs(model, outputs, produced, where)
    _inputs(model, inputs, columns)
    _drop_unused(model)
    return answers


def _free_names(model: ModelProto, declared: set[str]) -> None:
    """Rename values inside the graph that have declared names, such as a converter's own `score`."""
    graph = model.graph
    inside = {name for node in graph.node for name in node.output} | {item.name for item in graph.initializer}
    outside = {value.name for value in (*graph.input, *graph.output)}
    rename_values(model, {name: f"inside.{name}" for name in declared & (inside - outside)})


def _outputs(
    model: ModelProto, outputs: Sequence[OutputSpec], produced: Sequence[Produced], where: str
) -> tuple[GraphAnswer, ...]:
    from onnx import helper

    values = {value.name: value for value in model.graph.output}
    chosen = _chosen(outputs, produced, values, where)
    del model.graph.output[:]
    # Names that nothing has, so that a declared name can be that of another output of the converter.
    rename_values(model, {item.name: f"converter.{index}" for index, item in enumerate(produced)})
    position = {item.name: index for index, item in enumerate(produced)}
    for spec, item in zip(outputs, chosen, strict=True):
        value, source = values[item.name], f"converter.{position[item.name]}"
        if item.method == "decision_function" and _width(value) == 2 and spec.dims in ([], [1]):
            source = _score_of_two(model, source)
            value = helper.make_tensor_value_info(source, value.type.tensor_type.elem_type, [None, 1])
        _add_output(model, spec, source, value)
    return tuple(
        GraphAnswer(spec.name, item.method, tuple(spec.dims)) for spec, item in zip(outputs, chosen, strict=True)
    )


def _chosen(
    outputs: Sequence[OutputSpec], produced: Sequence[Produced], values: dict[str, ValueInfoProto], where: str
) -> list[Produced]:
    """For each declared output one that the graph gives: that of its name, or else the first of its type."""
    left, chosen = list(produced), {}
    for spec in sorted(outputs, key=lambda spec: spec.name not in values):
        named = [item for item in left if item.name == spec.name]
        typed = [item for item in left if _alike(_dtype(values[item.name]), spec.dtype)]
        if not typed:
            gives = ", ".join(f"{item.name} ({_dtype(values[item.name])}, of {item.method})" for item in produced)
            reason = (
                f"{where}: output '{spec.name}' is declared as {spec.dtype} {list(spec.shape)}; the graph gives {gives}"
            )
            raise StepError(reason, "declare what it gives: labels are INT64, or BYTES where classes are strings")
        chosen[spec.name] = next((item for item in named if item in typed), typed[0])
        left.remove(chosen[spec.name])
    return [chosen[spec.name] for spec in outputs]


def _score_of_two(model: ModelProto, source: str) -> str:
    """The score of two classes, which some converters give twice: as it is, and with its sign changed."""
    from onnx import helper

    column = 0 if any(node.op_type == "SVMClassifier" for node in model.graph.node) else -1
    model.graph.initializer.append(_integers(f"{source}.column", [column]))
    model.graph.node.append(helper.make_node("Gather", [source, f"{source}.column"], [f"{source}.score"], axis=1))
    return f"{source}.score"


def _add_output(model: ModelProto, spec: OutputSpec, source: str, value: ValueInfoProto) -> None:
    """A declared output: of its type, with the dimension of one number a row added or taken away."""
    from onnx import helper

    have = value.type.tensor_type.elem_type
    if {len(spec.shape) + 1, _rank(value)} == {1, 2} and spec.dims in ([], [1]):
        shape, reshaped = f"{spec.name}.shape", f"{source}.reshaped"
        model.graph.initializer.append(_integers(shape, [-1, *spec.dims]))
        model.graph.node.append(helper.make_node("Reshape", [source, shape], [reshaped]))
        source = reshaped
    model.graph.node.append(_cast(source, spec.name, have, BY_NAME[spec.dtype].onnx))
    model.graph.output.append(_value(spec))


def _inputs(model: ModelProto, inputs: Sequence[TensorSpec], columns: Sequence[str]) -> None:
    """Lead the declared inputs to those that the converter was told of, which get names that nothing has."""
    given = [(value.name, value.type.tensor_type.elem_type) for value in model.graph.input]
    rename_values(model, {name: f"given.{index}" for index, (name, _) in enumerate(given)})
    before: list[Any] = []
    if columns:
        for index, (_, element) in enumerate(given):
            before += _picked(model, inputs[0], index, element)
    elif {name for name, _ in given} == {spec.name for spec in inputs}:
        declared = {spec.name: spec for spec in inputs}
        for index, (name, element) in enumerate(given):
            before.append(_cast(name, f"given.{index}", BY_NAME[declared[name].dtype].onnx, element))
    else:
        before = _joined(inputs, given[0][1])
    del model.graph.input[:]
    model.graph.input.extend(_value(spec) for spec in inputs)
    kept = [type(node).FromString(node.SerializeToString()) for node in (*before, *model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _picked(model: ModelProto, spec: TensorSpec, index: int, element: int) -> list[Any]:
    """One column of a declared tensor. Gather, because Split has another form in each opset."""
    from onnx import helper

    model.graph.initializer.append(_integers(f"column.{index}.index", [index]))
    gather = helper.make_node("Gather", [spec.name, f"column.{index}.index"], [f"column.{index}"], axis=1)
    return [gather, _cast(f"column.{index}", f"given.{index}", BY_NAME[spec.dtype].onnx, element)]


def _joined(inputs: Sequence[TensorSpec], element: int) -> list[Any]:
    """Declared columns, in the order in which they were fitted, as the one table that the converter was told of."""
    from onnx import helper

    parts = [f"column.{index}" for index in range(len(inputs))]
    casts = [
        _cast(spec.name, part, BY_NAME[spec.dtype].onnx, element) for spec, part in zip(inputs, parts, strict=True)
    ]
    return [*casts, helper.make_node("Concat", parts, ["given.0"], axis=1)]


def _cast(source: str, target: str, have: int, wanted: int) -> Any:
    from onnx import helper

    same = have == wanted
    return (
        helper.make_node("Identity", [source], [target])
        if same
        else helper.make_node("Cast", [source], [target], to=wanted)
    )


def _drop_unused(model: ModelProto) -> None:
    """Nodes and weights that no declared output needs, as those of probabilities that nobody asked for."""
    needed = {value.name for value in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(type(node).FromString(node.SerializeToString()))
            needed.update(_read_by(node))
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    weights = [item for item in model.graph.initializer if item.name in needed]
    kept = [type(item).FromString(item.SerializeToString()) for item in weights]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    del model.graph.value_info[:]


def _read_by(node: Any) -> set[str]:
    """What a node reads, the graphs inside it included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for inner in graph.node:
                names |= _read_by(inner)
    return names


def _one_import_a_domain(model: ModelProto) -> None:
    """Converters note the default domain twice."""
    versions = {"": _OPSET}  # where the converter needs no operator of the default domain
    for item in model.opset_import:
        versions[item.domain] = max(item.version, versions.get(item.domain, 1))
    del model.opset_import[:]
    for domain, version in versions.items():
        model.opset_import.add(domain=domain, version=version)


def _value(spec: TensorSpec) -> ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(spec.name, BY_NAME[spec.dtype].onnx, [_ROWS, *spec.shape])


def _integers(name: str, values: list[int]) -> Any:
    import numpy as np
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(values, np.int64), name)


def _dtype(value: ValueInfoProto) -> str:
    found = BY_ONNX.get(value.type.tensor_type.elem_type)
    return found.name if found else "no tensor"


def _alike(given: str, declared: str) -> bool:
    """Whether one becomes the other by a cast that keeps what it means."""
    return given == declared or any({given, declared} <= group for group in _CASTS)


def _width(value: ValueInfoProto) -> int:
    """Values a row, where that is said; else 0."""
    dims = value.type.tensor_type.shape.dim
    return int(dims[1].dim_value) if len(dims) == 2 else 0


def _rank(value: ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)
