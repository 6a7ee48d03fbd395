"""The model that builders start from is what its docstring says."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from modelwright.onnx.example import sobel_onnx


def test_the_example_is_a_sobel_filter() -> None:
    across = np.outer([1, 2, 1], [-1, 0, 1])
    kernels = np.stack([across, across.T]).astype(np.float32)[:, None]
    shape = ["batch", 1, "height", "width"]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "sobel"], ["gradient"], pads=[1, 1, 1, 1]),
            helper.make_node("ReduceL2", ["gradient"], ["edges"], axes=[1], keepdims=1),
        ],
        "sobel",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("edges", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernels, "sobel")],
    )
    opsets = [helper.make_opsetid("", 17)]
    expected = helper.make_model(graph, producer_name="modelwright", opset_imports=opsets, ir_version=8)
    assert onnx.load_from_string(sobel_onnx()) == expected
