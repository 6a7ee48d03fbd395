"""Raising the opset of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto


def at_least(model: ModelProto, opset: int) -> ModelProto:
    """The same graph in this opset of ai.onnx or a later one, by ONNX's own converter; as it is where that fails."""
    from onnx import version_converter

    if all(item.version >= opset for item in model.opset_import if item.domain in ("", "ai.onnx")):
        return model
    try:
        return version_converter.convert_version(model, opset)
    except (RuntimeError, ValueError, version_converter.ConvertError):
        return model
