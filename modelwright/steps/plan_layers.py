"""Where a node of a graph comes from in the torch source, as far as names tell.

torch's dynamo exporter gives nodes numbers and keeps the names of parameters: a node belongs to the module whose
parameter it reads, or comes after that module. The older exporter names nodes by their modules:
/encoder/layer.0/Unique.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_STEPS = 200  # nodes that are looked at before one; a module with parameters is a few nodes away


def layers_before(graph: Path, names: Sequence[str]) -> list[str]:
    """For each node "in encoder.layer.0", "after encoder.layer.0", or "" where nothing tells."""
    import onnx

    model = onnx.load(str(graph), load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    by_name = {node.name: node for node in model.graph.node}
    return [_layer(by_name[name], makers, weights) if name in by_name else "" for name in names]


def _layer(node: Any, makers: dict[str, Any], weights: set[str]) -> str:
    if node.name.startswith("/") and node.name.count("/") > 1:
        return f"in {node.name[1:].rpartition('/')[0].replace('/', '.')}"
    if own := _module(node, weights):
        return f"in {own}"
    waiting, seen = deque(node.input), set(node.input)
    for _ in range(_STEPS):
        if not waiting:
            break
        maker = makers.get(waiting.popleft())
        if maker is None:
            continue
        if found := _module(maker, weights):
            return f"after {found}"
        fresh = [name for name in maker.input if name not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return ""


def _module(node: Any, weights: set[str]) -> str:
    """The module of a parameter that the node reads: "encoder.layer.0" of "encoder.layer.0.weight"."""
    parameters = [name for name in node.input if name in weights and "." in name]
    return parameters[0].rpartition(".")[0] if parameters else ""
