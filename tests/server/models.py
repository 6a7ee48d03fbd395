"""Tiny ONNX models and their configurations, and the one server environment that all tests share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from modelwright.server.environment import Environment, ensure
from modelwright.triton.dtypes import BY_CONFIG
from modelwright.triton.releases import release
from tests.needs import require

STATE = Path(__file__).parents[2] / ".modelwright/server"  # kept between runs: it is 100 MB to download
RELEASE = release("26.07")

Tensor = tuple[str, str, Sequence[Any]]  # (name, "TYPE_FP32", dims); in a graph a str dim is a variable one


def shared_environment() -> Environment:
    require("server")
    return ensure(STATE, RELEASE, lambda _: None)


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    initializers: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    def info(tensor: Tensor) -> onnx.ValueInfoProto:
        name, data_type, dims = tensor
        return helper.make_tensor_value_info(name, BY_CONFIG[data_type].onnx, dims)

    body = helper.make_graph(
        list(nodes), "graph", [info(tensor) for tensor in inputs], [info(tensor) for tensor in outputs], initializers
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def identity(data_type: str = "TYPE_FP32", dims: Sequence[Any] = ("batch", 4)) -> onnx.ModelProto:
    """y = x."""
    return graph([node("Identity", ["x"], ["y"])], [("x", data_type, dims)], [("y", data_type, dims)])


def double(dims: Sequence[Any] = ("batch", 4)) -> onnx.ModelProto:
    """y = x + x."""
    return graph([node("Add", ["x", "x"], ["y"])], [("x", "TYPE_FP32", dims)], [("y", "TYPE_FP32", dims)])


def power() -> onnx.ModelProto:
    """y = x to the power of an overridable 2."""
    exponent = helper.make_tensor("exponent", TensorProto.FLOAT, [1], [2.0])
    inputs = [("x", "TYPE_FP32", [4]), ("exponent", "TYPE_FP32", [1])]
    return graph([node("Pow", ["x", "exponent"], ["y"])], inputs, [("y", "TYPE_FP32", [4])], [exponent])


def config(
    max_batch_size: int = 8,
    inputs: Sequence[Tensor] = (("x", "TYPE_FP32", [4]),),
    outputs: Sequence[Tensor] = (("y", "TYPE_FP32", [4]),),
    extra: str = "",
) -> str:
    """A config.pbtxt with one instance; a tensor's name can be followed by more of its fields, after a semicolon."""
    lines = ['backend: "onnxruntime"', f"max_batch_size: {max_batch_size}", "instance_group [{ count: 1 }]", extra]
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for label, data_type, dims in tensors:
            name, _, more = label.partition(";")
            lines.append(f'{kind} [{{ name: "{name}" data_type: {data_type} dims: {list(dims)} {more} }}]')
    return "\n".join(lines)


def config_for(data_type: str, dims: Sequence[int], extra: str = "") -> str:
    """A configuration of `identity(data_type, …)`."""
    return config(inputs=[("x", data_type, dims)], outputs=[("y", data_type, dims)], extra=extra)


def publish(repository: Path, name: str, model: onnx.ModelProto, config: str, version: int = 1) -> str:
    """Write one version of a model; returns its name."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder.parent / "config.pbtxt").write_text(config)
    return name
