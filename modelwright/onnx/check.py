"""Whether an ONNX file can be served: its tensors, its weights and its versions, before anything loads it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelwright.errors import StepError
from modelwright.onnx.scan import OnnxScanError, scan
from modelwright.onnx.signature import Signature, Value

if TYPE_CHECKING:
    from modelwright.triton.releases import Release


def read_signature(path: Path) -> Signature:
    """What a file declares, without reading its weights.

    Raises StepError for a file that is not a whole ONNX model, for types and shapes that Triton cannot serve, and for
    external weights outside the file's folder.
    """
    signature = check_external(path)
    for value in (*signature.inputs, *signature.outputs):
        _check_value(path, value)
    return signature


def check_external(path: Path) -> Signature:
    """What a file declares. Raises StepError if it is not ONNX, or if its weights are outside its folder."""
    try:
        signature = scan(path)
    except OSError as error:
        raise StepError(f"{path}: {error.strerror}") from error
    except OnnxScanError as error:
        hint = "it may be cut short or of another format: check how it was copied or exported"
        raise StepError(f"{path.name}: not a whole ONNX model: {error}", hint) from error
    if not signature.ir_version or not signature.outputs:
        missing = "outputs" if signature.ir_version else "IR version"
        raise StepError(f"{path.name}: the ONNX model has no {missing}", "it may be cut short or of another format")
    for tensor in signature.external_tensors:
        location = PurePosixPath(tensor.location)
        if not tensor.location or location.is_absolute() or ".." in location.parts:
            raise StepError(f"{path.name}: weights of '{tensor.name}' lie outside its folder: '{tensor.location}'")
    return signature


def check_limits(signature: Signature, release: Release) -> None:
    """Refuse an IR version or opset that the release's onnxruntime does not load. Raises StepError."""
    for what, number, limit in (
        ("IR version", signature.ir_version or 0, release.max_ir),
        ("opset", signature.opset, release.max_opset),
    ):
        if number > limit:
            raise StepError(
                f"{what} {number} is above {limit}, the limit of onnxruntime {release.onnxruntime}"
                f" in Triton {release.name}",
                f"export with opset {release.max_opset} or lower and IR version {release.max_ir} or lower,"
                " or choose a later release in modelwright.toml",
            )


def _check_value(path: Path, value: Value) -> None:
    if value.dtype is None:
        what = f"element type {value.elem_type}" if value.kind == "tensor" else value.kind or "no type"
        raise StepError(f"{path.name}: '{value.name}' is of {what}, which Triton cannot serve", "cast it in the model")
    if value.dims is None:
        raise StepError(f"{path.name}: '{value.name}' declares no shape", "give it one, with names for dynamic sizes")
