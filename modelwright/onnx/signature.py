"""What an ONNX file declares: inputs, outputs, versions, and where its weights are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from modelwright.triton.dtypes import BY_ONNX

ValueKind = Literal["tensor", "sequence", "map", "optional", "sparse_tensor", "opaque", ""]


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
