"""Names that tf2onnx counts, the same in every process.

tf2onnx numbers what it adds to a graph, and merges equal constants, in an order that differs from one process to the
next: `const_axes__20` here is `const_starts__15` there. So these names follow from the graph: numbers in the order of
first use, and one word for all constants.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from modelwright.onnx.canonical import all_nodes, graphs_of

if TYPE_CHECKING:
    from onnx import ModelProto

_COUNTED = re.compile(r"(.*)__\d+(:\d+)?")
_CONSTANT = "constant"


def renumber(model: ModelProto) -> None:
    """Name the counted tensors and nodes of a graph by what uses them first, in place."""
    graphs = list(graphs_of(model))
    constants = {tensor.name for graph in graphs for tensor in graph.initializer}
    named = {value.name for value in (*model.graph.input, *model.graph.output)}
    tensors: dict[str, str] = {}
    for node in all_nodes(model):
        for name in (*node.input, *node.output):
            found = _COUNTED.fullmatch(name)
            if found and name not in named and name not in tensors:
                stem = _CONSTANT if name in constants else found[1]
                tensors[name] = f"{stem}__{len(tensors)}{found[2] or ''}"
    for node in all_nodes(model):
        node.input[:] = [tensors.get(name, name) for name in node.input]
        node.output[:] = [tensors.get(name, name) for name in node.output]
    for number, node in enumerate(all_nodes(model)):
        if found := _COUNTED.fullmatch(node.name):
            node.name = f"{found[1]}__{number}"
    for graph in graphs:
        for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            item.name = tensors.get(item.name, item.name)
        ordered = sorted(graph.initializer, key=lambda tensor: tensor.name)
        del graph.initializer[:]
        graph.initializer.extend(ordered)
