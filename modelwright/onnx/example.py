"""A small real ONNX file, for builders to start from. It lies beside this module: writing it takes no library."""

from __future__ import annotations

from importlib.resources import files


def sobel_onnx() -> bytes:
    """The length of the gradient of grey images by Sobel filters, (batch, 1, height, width) → the same shape.

    Its opset, 17, and IR version, 8, are older than the limits of every release this package knows.
    """
    return files("modelwright.onnx").joinpath("example.onnx").read_bytes()
