"""What an ONNX file declares: inputs, outputs, versions, and where its weights are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from modelwright.triton.dtypes import BY_ONNX
from modelwright.triton.releases import Release, has_older_onnxruntime

# onnx.TensorProto.DataType by number, which files hold: messages show the name.
# fmt: off
_ELEMENT_TYPES = (
    "UNDEFINED", "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL", "FLOAT16", "DOUBLE",
    "UINT32", "UINT64", "COMPLEX64", "COMPLEX128", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2",
    "FLOAT8E5M2FNUZ", "UINT4", "INT4", "FLOAT4E2M1", "FLOAT8E8M0", "UINT2", "INT2",
)
# fmt: on

ValueKind = Literal["tensor", "sequence", "map", "optional", "sparse_tensor", "opaque", ""]


def element_type(number: int) -> str:
    """ONNX's name of an element type: "BFLOAT16"."""
    return _ELEMENT_TYPES[number] if 0 <= number < len(_ELEMENT_TYPES) else f"element type {number}"


@dataclass(frozen=True)
class Value:
    """An input or output of the graph. `elem_type` and `dims` belong to a tensor, sparse or not."""

    name: str
    kind: ValueKind
    elem_type: int  # TensorProto.DataType; 0 for none
    # The batch included. A str names a dynamic dimension, -1 is one without a name. None: no shape is declared.
    dims: tuple[int | str, ...] | None

    @property
    def dtype(self) -> str | None:
        """Triton's name of the type, "FP32"; None for what Triton cannot serve."""
        return BY_ONNX[self.elem_type].name if self.kind == "tensor" and self.elem_type in BY_ONNX else None

    def served_since(self, target: Release) -> str:
        """The first Triton release that takes its type; empty where `target` does, or no release takes it."""
        known = BY_ONNX.get(self.elem_type) if self.kind == "tensor" else None
        since = known.onnxruntime_since if known else ""
        return since if since and has_older_onnxruntime(target, since) else ""


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose data is in another file. `length` None: up to that file's end."""

    name: str
    location: str
    offset: int
    length: int | None


@dataclass(frozen=True)
class Signature:
    inputs: tuple[Value, ...] = ()  # those without an initializer
    outputs: tuple[Value, ...] = ()
    overridable: tuple[Value, ...] = ()  # inputs with an initializer; empty before IR 4, where these are constants
    opsets: dict[str, int] = field(default_factory=dict)  # "" is ai.onnx
    ir_version: int | None = None  # None where the file has none, which onnxruntime refuses; it accepts a written 0
    external_tensors: tuple[ExternalTensor, ...] = ()  # of the graph, the graphs inside its nodes, and the functions
    producer: str = ""

    @property
    def opset(self) -> int:
        """Version of the ai.onnx domain; a model without one is of opset 1 (ONNX's IR.md)."""
        return self.opsets.get("", 1)

    @property
    def external(self) -> tuple[str, ...]:
        """The files with weights, relative to the folder of the ONNX file."""
        return tuple(sorted({tensor.location for tensor in self.external_tensors}))
