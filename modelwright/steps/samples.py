"""Golden samples: the builder's own inputs, checked against what it says its tensors are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelwright.errors import StepError
from modelwright.facts.part import Facts, Integer
from modelwright.project.spec import TensorSpec
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.tensors import Tensors, save_tensors


class Sampled(Facts):
    count: Integer  # rows


def run(context: StepContext, out: Path) -> Sampled:
    """Call the samples entry; keep `samples.npz`."""
    entry = context.builder.spec.samples
    assert entry is not None
    samples = call(context, "samples", entry)
    where = f"{context.builder.file}: samples {entry}"
    tensors = as_tensors(samples, where)
    check_tensors(tensors, context.builder.spec.inputs, where)
    save_tensors(out / "samples.npz", tensors)
    return Sampled(count=len(next(iter(tensors.values()))))


def as_tensors(value: Any, where: str) -> Tensors:
    """What a builder's function returned, as {name: array}, string arrays as objects of bytes. Raises StepError."""
    import numpy as np

    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        raise StepError(f"{where}: expected {{name: array}}, got {_described(value)}")
    tensors: Tensors = {}
    for name, item in value.items():
        array = np.asarray(item)
        if array.dtype.kind in "US" or array.dtype == object:
            flat = [part.encode() if isinstance(part, str) else part for part in array.ravel().tolist()]
            if not all(isinstance(part, bytes) for part in flat):
                raise StepError(f"{where}: '{name}' holds neither numbers nor strings")
            encoded = np.empty(len(flat), dtype=object)
            encoded[:] = flat
            array = encoded.reshape(array.shape)
        tensors[name] = array
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in tensors.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise StepError(f"{where}: every tensor needs the same number of rows, at least one; got {lengths}")
    return tensors


def check_tensors(tensors: Tensors, specs: tuple[TensorSpec, ...], where: str) -> None:
    """Names, dtypes and shapes against the model.yaml's. Arrays are (N, *shape), N samples. Raises StepError."""
    if not specs:
        return
    names = [spec.name for spec in specs]
    if set(tensors) != set(names):
        raise StepError(f"{where}: expected tensors {sorted(names)}, got {sorted(tensors)}")
    for spec in specs:
        array = tensors[spec.name]
        if array.dtype != BY_NAME[spec.dtype].numpy:
            hint = f".astype('{BY_NAME[spec.dtype].numpy}') makes it one"
            raise StepError(f"{where}: '{spec.name}' is {array.dtype}, expected {spec.dtype}", hint)
        actual = array.shape[1:]
        dims = spec.dims
        if len(actual) != len(dims) or any(dim not in (-1, size) for dim, size in zip(dims, actual, strict=False)):
            expected = ", ".join(["N", *map(str, spec.shape)])
            raise StepError(f"{where}: '{spec.name}' has shape {array.shape}, expected ({expected})")


def _described(value: Any) -> str:
    return f"a dict with keys {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__
