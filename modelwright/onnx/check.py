"""Whether an ONNX file can be served: its tensors, its weights and its versions, before anything loads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelwright.errors import StepError
from modelwright.fsops import not_a_file, read_file
from modelwright.onnx.rows import other_rows
from modelwright.onnx.scan import MAX_BYTES, OnnxScanError, scan
from modelwright.onnx.signature import Signature, Value, element_type
from modelwright.onnx.weights import SAVE_WEIGHTS, is_inside
from modelwright.triton.file_types import file_type

if TYPE_CHECKING:
    from modelwright.triton.releases import Release

_NO_SHAPE = "give it one, with names for dynamic sizes"
_ZIPMAP = (
    "its ZipMap makes dicts of the probabilities: convert with options={'zipmap': False} (skl2onnx) or zipmap=False"
    " (onnxmltools); or remove the ZipMap node, whose input is the tensor"
)
_KINDS = {
    "sequence": "a sequence",
    "map": "a map",
    "optional": "an optional value",
    "sparse_tensor": "a sparse tensor",
    "opaque": "of an opaque type",
    "": "of no type",
}
# How a model comes to a tensor in place of an input, and of an output, of such a kind.
_INSTEAD = {
    "sequence": (
        "take each part as an input; or one tensor, which the model splits (SplitToSequence)",
        "return a tensor: join the parts in the model (ConcatFromSequence), or return each as an output",
    ),
    "map": (
        "take a tensor: the values of the map, in the order of its keys",
        "return a tensor: the values of the map, in the order of its keys",
    ),
    "optional": (
        "take a tensor each time; where it can be missing, make two models",
        "return a tensor that is always there, empty where there is nothing (OptionalGetElement)",
    ),
    "sparse_tensor": ("make it dense in the model", "make it dense in the model"),
}


def read_signature(path: Path) -> Signature:
    """What a file declares, without reading its weights.

    Raises StepError for a file that is not a whole ONNX model, for types and shapes that Triton cannot serve, and for
    external weights outside the file's folder.
    """
    signature = check_external(path)
    for value in signature.inputs:
        _check_value(path, value, is_input=True)
    for value in signature.outputs:
        _check_value(path, value, is_input=False)
    return signature


def check_external(path: Path) -> Signature:
    """What a file declares. Raises StepError if it is not ONNX, or if its weights are outside its folder."""
    try:
        signature = scan(path)
    except OSError as error:
        raise StepError(f"{path}: {error.strerror}") from error
    except OnnxScanError as error:
        found = file_type(path)
        if found:
            raise StepError(f"{path.name}: not an ONNX model: it is {found.what}", found.fix) from error
        hint = "it may be cut short or of another format: check how it was copied or exported"
        raise StepError(f"{path.name}: not a whole ONNX model: {error}", hint) from error
    if not signature.ir_version or not signature.outputs:
        missing = "outputs" if signature.ir_version else "IR version"
        raise StepError(f"{path.name}: the ONNX model has no {missing}", "it may be cut short or of another format")
    for tensor in signature.external_tensors:
        if not is_inside(tensor.location):
            message = f"{path.name}: weights of '{tensor.name}' lie outside its folder: '{tensor.location}'"
            raise StepError(message, f"onnxruntime refuses that; load it with onnx, and {SAVE_WEIGHTS}")
        weights = path.parent / tensor.location
        if weights.exists() and not weights.is_file():  # onnxruntime would open it, and a pipe never ends
            raise StepError(f"{path.name}: the weights in '{tensor.location}': what is there {not_a_file(weights)}")
    return signature


def check_shapes(declared: Signature, found: Signature, name: str) -> None:
    """Check that each output has a shape, declared or inferred. Raises StepError."""
    shapeless = {value.name for value in declared.outputs if value.dims is None}
    for value in found.outputs:
        if value.name in shapeless and not value.dims:  # as onnxruntime gives a shape that it does not know
            raise StepError(f"{name}: '{value.name}' has no shape, and onnxruntime infers none", _NO_SHAPE)


def check_rows(signature: Signature, name: str) -> None:
    """Refuse a batch whose outputs have another number of rows, by the names of dimensions. Raises StepError."""
    for found in other_rows(signature.inputs, signature.outputs):
        raise StepError(
            f"{name}: output '{found.output}' has '{found.name}' rows, and a request '{found.rows}': a server splits a "
            "batch by rows, so each output needs one for each row of its request",
            "set serving.max_batch_size: 0, after which samples carry the batch dimension themselves; or give the"
            f" dimension the name '{found.rows}' in the file, if it is the same number",
        )


def check_limits(signature: Signature, release: Release) -> None:
    """Refuse an IR version, an opset or a data type that the release does not serve. Raises StepError."""
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
    for value in (*signature.inputs, *signature.outputs):
        if since := value.served_since(release):
            raise StepError(
                f"'{value.name}' is {element_type(value.elem_type)}, which Triton {release.name} does not serve from an"
                f" ONNX model: the first release that does is {since}",
                "cast it to FLOAT in the model, or choose a later release in modelwright.toml",
            )


def _check_value(path: Path, value: Value, *, is_input: bool) -> None:
    if value.dtype is None:
        what = f"is of {element_type(value.elem_type)}" if value.kind == "tensor" else f"is {_KINDS[value.kind]}"
        raise StepError(
            f"{path.name}: '{value.name}' {what}, which Triton cannot serve", _hint(path, value, is_input=is_input)
        )
    if value.dims is None and is_input:
        raise StepError(f"{path.name}: '{value.name}' declares no shape", _NO_SHAPE)


def _hint(path: Path, value: Value, *, is_input: bool) -> str:
    if value.kind not in _INSTEAD:
        return "cast it in the model"
    if not is_input and value.kind in ("sequence", "map") and b"ZipMap" in read_file(path, MAX_BYTES):
        return _ZIPMAP
    return _INSTEAD[value.kind][0 if is_input else 1]
