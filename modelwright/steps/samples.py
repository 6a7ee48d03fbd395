"""Golden samples: the builder's own inputs, checked against what it says its tensors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, one_line
from modelwright.facts.part import Facts, Integer
from modelwright.project.spec import TensorSpec
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.triton.arrays import datatype_of, rounded, rounded_to
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.tensors import Tensors, load_tensors, save_tensors
from modelwright.verification.samples import Column, pack, unpack, unstacked

if TYPE_CHECKING:
    import numpy as np

FILE = "samples.npz"


class Sampled(Facts):
    count: Integer  # rows


def run(context: StepContext, out: Path) -> Sampled:
    """Call the samples entry; keep `samples.npz`."""
    entry = context.builder.spec.samples
    assert entry is not None
    where = f"{context.builder.file}: samples {entry}"
    samples = as_samples(call(context, "samples", entry), where)
    samples = as_declared(samples, context.builder.spec.inputs, where)
    save_tensors(out / FILE, pack(samples))
    return Sampled(count=len(samples))


def load_samples(context: StepContext, types: Mapping[str, str]) -> list[Tensors]:
    """What the samples step of this model made, rounded where `types` of inputs say so that model.yaml leaves out."""
    samples = unpack(load_tensors(context.inputs["samples"] / FILE))
    return [rounded_to(sample, types) for sample in samples]


def as_samples(value: Any, where: str) -> list[Tensors]:
    """What a builder's function returned, {name: (N, *shape), or a list of N arrays}, sample by sample.

    Strings become objects of bytes. Raises StepError.
    """
    if isinstance(value, Mapping) and not value:
        hint = "a model without inputs answers the same each time: there is nothing to serve"
        raise StepError(f"{where}: expected {{name: array}}, got no tensors", hint)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise StepError(f"{where}: expected {{name: array}}, got {_described(value)}")
    tensors = {name: _column(item, f"{where}: '{name}'") for name, item in value.items()}
    lengths = {name: len(column) for name, column in tensors.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise StepError(f"{where}: every tensor needs the same number of samples, at least one; got {lengths}")
    return unstacked(tensors)


def _column(item: Any, where: str) -> Column:
    """One tensor of all samples: an array (N, *shape), or a list of N arrays that differ in size."""
    import numpy as np

    if isinstance(item, list | tuple) and any(isinstance(part, np.ndarray) for part in item):
        arrays = [_array(part, where) for part in item]
        if len({array.ndim for array in arrays}) > 1 or len({array.dtype for array in arrays}) > 1:
            raise StepError(f"{where}: its samples differ in rank or type: {[_shown(array) for array in arrays[:4]]}")
        return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
    array = _array(item, where)
    if not array.ndim:
        raise StepError(f"{where}: expected an array of samples, got a single value", "the first axis counts samples")
    return array


def _array(item: Any, where: str) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        array = np.asarray(item)
    except ValueError as error:
        hint = "give a list of numpy arrays, one a sample, where samples differ in size"
        raise StepError(f"{where}: not an array: {one_line(error)}", hint) from None
    if array.dtype.kind not in "USO":
        return array
    flat = [part.encode() if isinstance(part, str) else part for part in array.ravel().tolist()]
    if not all(isinstance(part, bytes) for part in flat):
        raise StepError(f"{where} holds neither numbers nor strings")
    encoded = np.empty(len(flat), dtype=object)
    encoded[:] = flat
    return encoded.reshape(array.shape)


def as_declared(samples: Sequence[Tensors], specs: Sequence[TensorSpec], where: str) -> list[Tensors]:
    """Samples or answers, checked against what model.yaml declares: names, dtypes and shapes.

    A scalar may be declared as [] or [1], and given as either. Floats are rounded where BF16 is declared, which numpy
    does not have. Raises StepError.
    """
    if not specs:
        return list(samples)
    names = [spec.name for spec in specs]
    if set(samples[0]) != set(names):
        raise StepError(f"{where}: expected tensors {sorted(names)}, got {sorted(samples[0])}")
    for spec in specs:
        first = rounded(samples[0][spec.name], spec.dtype)
        if datatype_of(first) != spec.dtype:
            hint = f".astype('{BY_NAME[spec.dtype].numpy}') makes it one"
            raise StepError(f"{where}: '{spec.name}' is {first.dtype}, expected {spec.dtype}", hint)
    return [
        {
            spec.name: _as_declared(sample[spec.name], spec, f"{where}: '{spec.name}' of sample {index}")
            for spec in specs
        }
        for index, sample in enumerate(samples)
    ]


def _as_declared(array: np.ndarray[Any, Any], spec: TensorSpec, where: str) -> np.ndarray[Any, Any]:
    array = rounded(array, spec.dtype)
    dims = tuple(spec.dims)
    if {array.shape, dims} == {(), (1,)}:
        return array.reshape(dims)
    if array.ndim != len(dims) or any(dim not in (-1, size) for dim, size in zip(dims, array.shape, strict=True)):
        expected = ", ".join(map(str, spec.shape))
        hint = "arrays are (N, *shape), N samples; or correct the shape in model.yaml"
        raise StepError(f"{where} has shape {list(array.shape)}, expected [{expected}]", hint)
    return array


def _shown(array: np.ndarray[Any, Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _described(value: Any) -> str:
    return f"a dict with keys {sorted(map(str, value))}" if isinstance(value, dict) else type(value).__name__
