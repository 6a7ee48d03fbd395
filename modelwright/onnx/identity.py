"""The smallest ONNX model, y = Identity(x): for examples of lint rules and for tests."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.triton.dtypes import BY_NAME


def identity_model(
    dims: Sequence[str | int],
    dtype: str = "FP32",
    opset: int = 17,
    ir: int = 8,
    external: str = "",
    rows: str = "",
) -> bytes:
    """A model file. Names in `dims` are dynamic dimensions. With the dtype "SEQUENCE", y is a sequence of tensors.

    `external` is the location of an initializer's data, which is not written. `rows` is another name for the first
    dimension of y.
    """
    from onnx import TensorProto, helper

    sequence = dtype == "SEQUENCE"
    element = TensorProto.FLOAT if sequence else BY_NAME[dtype].onnx
    node = helper.make_node("SequenceConstruct" if sequence else "Identity", ["x"], ["y"])
    make = helper.make_tensor_sequence_value_info if sequence else helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", element, list(dims))],
        [make("y", element, [rows, *dims[1:]] if rows else list(dims))],
    )
    if external:
        tensor = graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=external)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    return bytes(model.SerializeToString())
