"""Whether a model's outputs have as many rows as its inputs, as far as the names of their first dimensions say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from modelwright.onnx.signature import Value

# Names that exporters and shape inference make up, and that say nothing: unk__12 (tf2onnx), s12 and u0 (torch),
# Addoutput_dim_0 and input_dynamic_axes_1 (TorchScript), DynamicDimension.3 (Paddle), NonZero_o0__d1 (onnxruntime).
_GENERATED = re.compile(
    r"unk_.*|unknown.*|none|dyn.*|dim_?\d*|axis_?\d*|[a-z]?\d+|.*_dim_\d+|.*_dynamic_axes_\d+|.*_o\d+__d\d+|_.*",
    re.IGNORECASE,
)
# People spell it differently on the two sides: batch and batch_size, N and batch.
_BATCH = re.compile(r"n|b|bs|.*batch.*", re.IGNORECASE)


@dataclass(frozen=True)
class OtherRows:
    """An output whose first dimension has another name than that of all inputs."""

    output: str
    name: str  # of the output's first dimension
    rows: str  # of the inputs' first dimension


def other_rows(inputs: Sequence[Value], outputs: Sequence[Value]) -> list[OtherRows]:
    """The outputs that have another number of rows than a request, by the names that people gave.

    Only where all inputs share one such name. A name that an exporter generated says nothing.
    """
    names = {_given(value) for value in inputs}
    rows = next(iter(names)) if len(names) == 1 else None
    if rows is None:
        return []
    found = ((value.name, _given(value)) for value in outputs)
    return [OtherRows(output, name, rows) for output, name in found if name and not _same(name, rows)]


def is_given(dim: int | str | None) -> bool:
    """Whether a dimension has a name, and a person gave it that."""
    return isinstance(dim, str) and dim.isidentifier() and not _GENERATED.fullmatch(dim)


def _given(value: Value) -> str | None:
    """The name of the first dimension, if a person gave it one."""
    first = value.dims[0] if value.dims else None
    return first if isinstance(first, str) and is_given(first) else None


def _same(name: str, rows: str) -> bool:
    return name == rows or bool(_BATCH.fullmatch(name) and _BATCH.fullmatch(rows))
