"""The tensors inside a model: their types as onnxruntime infers them, and their values.

Only the main graph's: what a node's own graphs (If, Loop) compute inside cannot be an output of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.onnx.canonical import save_canonical
from modelwright.onnx.runtime import load_session, run_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from modelwright.triton.tensors import Tensors

FLOAT = "tensor(float)"  # as onnxruntime names types
_NO_OPTIMIZATION = 2  # of ModelConfig's optimization.graph.level: each tensor is computed as the file says


def value_types(model: ModelProto, folder: Path, libraries: Iterable[Path] = ()) -> dict[str, str]:
    """{tensor: its type, "tensor(float)"} of the main graph: inputs, weights, and what nodes make.

    `folder` takes a temporary file. Raises StepError where onnxruntime does not load the model.
    """
    session = exposing_session(model, _node_outputs(model.graph), folder, libraries)
    found = {item.name: item.type for item in (*session.get_inputs(), *session.get_outputs())}
    return found | {tensor.name: _type_name(tensor.data_type) for tensor in model.graph.initializer}


def exposing_session(model: ModelProto, names: Iterable[str], folder: Path, libraries: Iterable[Path] = ()) -> Any:
    """A session of a model that gives the named tensors, too."""
    from onnx import ModelProto, ValueInfoProto

    extended = ModelProto()
    extended.CopyFrom(model)
    known = {output.name for output in model.graph.output}
    extended.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in known)
    file = folder / "values.onnx"
    save_canonical(extended, file)
    try:
        return load_session(file, graph_level=_NO_OPTIMIZATION, libraries=libraries)
    finally:
        for path in folder.glob(f"{file.name}*"):
            path.unlink()


def largest_values(
    model: ModelProto,
    names: Sequence[str],
    feeds: Iterable[Tensors],
    folder: Path,
    libraries: Iterable[Path] = (),
    *,
    limit: float,
) -> dict[str, float]:
    """{float32 tensor: its largest size below `limit`}, over runs of a model. It is found inside the graph."""
    from onnx import ModelProto

    measuring = ModelProto()
    measuring.CopyFrom(model)
    measures = {name: f"{name}.largest" for name in names}
    for name, measure in measures.items():
        _add_largest(measuring.graph, name, measure, limit)
    session = exposing_session(measuring, measures.values(), folder, libraries)
    largest = dict.fromkeys(names, 0.0)
    for feed in feeds:
        found = run_session(session, feed, list(measures.values()))
        for name, measure in measures.items():
            largest[name] = max(largest[name], float(found[measure]))
    return largest


def _add_largest(graph: GraphProto, name: str, measure: str, limit: float) -> None:
    """Nodes that make the largest |value| of a tensor below `limit`."""
    import numpy as np
    from onnx import helper, numpy_helper

    zero, flat = f"{measure}.zero", f"{measure}.flat"
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), zero))
    graph.initializer.append(numpy_helper.from_array(np.array([limit], np.float32), f"{flat}.limit"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), f"{flat}.shape"))
    graph.node.extend(
        [
            helper.make_node("Reshape", [name, f"{flat}.shape"], [flat]),
            helper.make_node("Abs", [flat], [f"{flat}.size"]),
            helper.make_node("Less", [f"{flat}.size", f"{flat}.limit"], [f"{flat}.counts"]),
            helper.make_node("Where", [f"{flat}.counts", f"{flat}.size", zero], [f"{flat}.counted"]),
            # A tensor may be empty, which ReduceMax does not take.
            helper.make_node("Concat", [f"{flat}.counted", zero], [f"{flat}.some"], axis=0),
            helper.make_node("ReduceMax", [f"{flat}.some"], [measure], keepdims=0),
        ]
    )


def _node_outputs(graph: GraphProto) -> list[str]:
    return [name for node in graph.node for name in node.output if name]


def _type_name(elem_type: int) -> str:
    """onnxruntime's name of an element type: 1 → "tensor(float)"."""
    from onnx import TensorProto

    names = {TensorProto.FLOAT: "float", TensorProto.STRING: "string"}
    return f"tensor({names.get(elem_type) or TensorProto.DataType.Name(elem_type).lower()})"
