"""Small graphs to quantise, and builders of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tests.conftest import Sandbox

DATA_PY = """
import numpy as np


def samples():
    return {"x": np.random.default_rng(1).normal(size=(24, %(shape)s)).astype(np.float32)}


def evaluate(infer, source):
    x = np.random.default_rng(2).normal(size=(64, %(shape)s)).astype(np.float32)
    own, plain = infer({"x": x})["y"], source({"x": x})["y"]
    return {"error": float(np.linalg.norm(own - plain) / np.linalg.norm(plain)), "bias": float((own - plain).mean())}


def calibration():
    return {"x": np.random.default_rng(3).normal(size=(400, %(shape)s)).astype(np.float32)}
"""

YAML = """
source: {kind: onnx, path: model.onnx}
samples: data:samples
serving: {max_batch_size: 8}
variants:
  - name: small_int8
    steps: [{quantise: %(options)s}]
    evaluate: data:evaluate
    gates: {%(gates)s}
"""


def weight(*shape: int) -> Any:
    return (np.random.default_rng(sum(shape)).normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)


def save(
    path: Path,
    nodes: list[NodeProto],
    weights: dict[str, Any],
    given: list[Any],
    answer: list[Any],
    *,
    opset: int = 20,
    dtype: int = TensorProto.FLOAT,
) -> None:
    """A graph of one input `x` and one output `y`."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", dtype, given)],
        [helper.make_tensor_value_info("y", dtype, answer)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)


def perceptron(path: Path, *, opset: int = 20, half: bool = False) -> None:
    """(batch, 16) → (batch, 4): MatMul, Relu, Gemm."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Gemm", ["b", "w2", "bias"], ["y"], "second", transB=1),
    ]
    kind = np.float16 if half else np.float32
    weights = {"w1": weight(16, 32), "w2": weight(4, 32), "bias": weight(4)}
    save(
        path,
        nodes,
        {name: array.astype(kind) for name, array in weights.items()},
        ["batch", 16],
        ["batch", 4],
        opset=opset,
        dtype=TensorProto.FLOAT16 if half else TensorProto.FLOAT,
    )


def with_constants(path: Path) -> None:
    """The perceptron with its weights in Constant nodes, as PaddlePaddle's exporter writes them."""
    perceptron(path)
    model = onnx.load(path)
    weights = [helper.make_node("Constant", [], [item.name], value=item) for item in model.graph.initializer]
    nodes = [*weights, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def with_outlier(path: Path) -> None:
    """(batch, 16) → (batch, 4): of the two layers that are added, one has an input whose first channel is 1000 times the
    others. Its weights ignore that channel: in float it does no harm."""
    factor = np.ones(16, np.float32)
    factor[0] = 1000
    hurt = weight(16, 4)
    hurt[0] = 0
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["stretched"], "stretch"),
        helper.make_node("MatMul", ["stretched", "w_hurt"], ["a"], "hurts"),
        helper.make_node("MatMul", ["x", "w_fine"], ["b"], "fine"),
        helper.make_node("MatMul", ["x", "w_good"], ["c"], "good"),
        helper.make_node("Sum", ["a", "b", "c"], ["y"], "sum"),
    ]
    weights = {"factor": factor, "w_hurt": hurt, "w_fine": weight(16, 4), "w_good": weight(16, 4) / 2}
    save(path, nodes, weights, ["batch", 16], ["batch", 4])


def convolution(path: Path) -> None:
    """(batch, 1, 8, 8) → (batch, 4): Conv, Relu, Conv, Add, GlobalAveragePool, Flatten, Gemm."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"], "residual"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], "scores"),
    ]
    weights = {"w1": weight(8, 1, 3, 3), "b1": weight(8), "w2": weight(8, 8, 3, 3) / 3, "w3": weight(8, 4)}
    save(path, nodes, weights, ["batch", 1, 8, 8], ["batch", 4])


def sequence(path: Path) -> None:
    """(batch, length, 16) → (batch, 4): samples may differ in length."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "words"),
        helper.make_node("ReduceMean", ["a", "axes"], ["b"], "mean", keepdims=0),
        helper.make_node("MatMul", ["b", "w2"], ["y"], "answer"),
    ]
    weights = {"w1": weight(16, 8), "axes": np.array([1], np.int64), "w2": weight(8, 4)}
    save(path, nodes, weights, ["batch", "length", 16], ["batch", 4])


def recurrent(path: Path) -> None:
    """(batch, 6, 16) → (batch, 8): an LSTM, which takes time first."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["by_time"], "transpose", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["by_time", "w", "r"], ["", "h"], "lstm", hidden_size=8),
        helper.make_node("Squeeze", ["h", "axes"], ["y"], "last"),
    ]
    weights = {"w": weight(1, 32, 16), "r": weight(1, 32, 8), "axes": np.array([0], np.int64)}
    save(path, nodes, weights, ["batch", 6, 16], ["batch", 8])


def builder(
    sandbox: Sandbox, make: Any, options: str, *, gates: str = "error: {max: 0.1}", shape: str = "16", **given: Any
) -> Path:
    """A builder `small` of a graph, with the variant `small_int8`."""
    folder = sandbox.write(
        "small", model_yaml=YAML % {"options": options, "gates": gates}, data_py=DATA_PY % {"shape": shape}
    )
    make(folder / "model.onnx", **given)
    return folder
