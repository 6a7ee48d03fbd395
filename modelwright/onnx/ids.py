"""How large the numbers in an input may be, as far as the graph says: ids are rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, NodeProto

# Operators that pass on the values of their first input, or the shape of their first input, as it is.
_SAME_VALUES = {
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}
_SAME_SHAPE = {"Cast", "DequantizeLinear", "Identity"}
# EmbedLayerNormalization of onnxruntime's own operators: (its ids, its table) by position.
_EMBEDDINGS = ((0, 2), (1, 4))


@dataclass(frozen=True)
class IdLimit:
    """The ids of an input are 0 to `below` - 1: rows of `table`."""

    below: int
    table: str


def id_limits(path: Path) -> dict[str, IdLimit]:
    """{input: its limit} of the inputs that select rows of a table, as those of an embedding do. Weights are not read.

    The smallest, where an input selects from several tables.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    nodes = list(_nodes(graph))
    sources = {output: node for node in nodes for output in node.output}
    shapes = _shapes(graph, nodes)
    inputs = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    found: dict[str, IdLimit] = {}
    for node in nodes:
        for ids, table, axis in _selections(node):
            name, shape = _traced(ids, sources, _SAME_VALUES), shapes.get(_traced(table, sources, _SAME_SHAPE), ())
            if name in inputs and -len(shape) <= axis < len(shape):
                limit = IdLimit(shape[axis], table)
                found[name] = min(limit, found.get(name, limit), key=lambda item: item.below)
    return found


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """The nodes of a graph and of the graphs inside them, whose names are those of the outer one, too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)
            for inner in attribute.graphs:
                yield from _nodes(inner)


def _shapes(graph: GraphProto, nodes: list[NodeProto]) -> dict[str, tuple[int, ...]]:
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in nodes:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = tuple(attribute.t.dims)
    return found


def _selections(node: NodeProto) -> Iterator[tuple[str, str, int]]:
    """(ids, table, axis of the table) of a node that selects rows."""
    if node.op_type == "Gather":
        yield node.input[1], node.input[0], _integer(node.attribute, "axis")
    elif node.op_type == "EmbedLayerNormalization":
        for ids, table in _EMBEDDINGS:
            if len(node.input) > table and node.input[ids]:
                yield node.input[ids], node.input[table], 0


def _integer(attributes: Iterator[AttributeProto] | list[AttributeProto], name: str) -> int:
    return next((attribute.i for attribute in attributes if attribute.name == name), 0)


def _traced(name: str, sources: Mapping[str, NodeProto], through: set[str]) -> str:
    """The name at the beginning of a chain of operators that change nothing that matters."""
    seen = set()
    while name in sources and sources[name].op_type in through and name not in seen and sources[name].input:
        seen.add(name)
        name = sources[name].input[0]
    return name
