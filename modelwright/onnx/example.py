"""A small real ONNX file, for builders to start from."""

from __future__ import annotations

# Older than the limits of every release this package knows.
_OPSET, _IR = 17, 8


def sobel_onnx() -> bytes:
    """The length of the gradient of grey images by Sobel filters, (batch, 1, height, width) → the same shape."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

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
    opset = helper.make_opsetid("", _OPSET)
    model: bytes = helper.make_model(
        graph, producer_name="modelwright", opset_imports=[opset], ir_version=_IR
    ).SerializeToString(deterministic=True)
    return model
