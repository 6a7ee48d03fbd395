"""What the contenders are given: golden samples of the plain model, stacked into batches of one size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelwright.errors import LoadError
from modelwright.project.spec import Builder, TensorSpec
from modelwright.suggest import did_you_mean
from modelwright.triton.arrays import repeated
from modelwright.triton.tensors import Tensors
from modelwright.verification.samples import of_equal_sizes, stacked

if TYPE_CHECKING:
    import numpy as np

_PREFERRED = "preferred_batch_size"


def batch_sizes(builder: Builder, largest: int) -> list[int]:
    """1, one in the middle, and `largest`; in the middle: the largest that model.yaml prefers, or about its root.

    Without a batch dimension (`largest` is 0) a call is one sample.
    """
    if largest <= 1:
        return [1]
    batching = builder.spec.serving.get("dynamic_batching")
    preferred = batching.get(_PREFERRED) if isinstance(batching, Mapping) else None
    sizes = preferred if isinstance(preferred, list) else ()
    between = [size for size in sizes if isinstance(size, int) and 1 < size < largest]
    middle = max(between, default=2 ** (math.floor(math.log2(largest)) // 2))
    return sorted({1, middle, largest})


def check_batches(batches: Sequence[int], largest: Mapping[str, int]) -> list[int]:
    """The batch sizes as they were asked for. Raises LoadError for one that a contender does not take."""
    for model, most in largest.items():
        for batch in batches:
            if batch > max(most, 1):
                what = f"max_batch_size is {most}" if most else "it has no batch dimension"
                raise LoadError(f"--batch {batch}: {model} takes at most {max(most, 1)} ({what})", "leave it out")
    return sorted(set(batches))


def sized(samples: Sequence[Tensors], inputs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> list[Tensors]:
    """Samples with each dynamic dimension of `sizes` ({"sequence": 64}) cut, or repeated, to that size.

    A dimension is called as in model.yaml; one without a name is `input[axis]`. Raises LoadError for an unknown one.
    """
    axes = {
        (tensor.name, axis): dim if isinstance(dim, str) else f"{tensor.name}[{axis}]"
        for tensor in inputs
        for axis, dim in enumerate(tensor.shape)
        if isinstance(dim, str) or dim == -1
    }
    for name in sizes:
        if name not in axes.values():
            known = sorted(set(axes.values()))
            hint = did_you_mean(name, known) if known else "every dimension of its inputs is fixed"
            raise LoadError(f"--size {name}: no dynamic dimension of this name", hint)
    return [
        {name: _resized(array, {a: sizes[dim] for (n, a), dim in axes.items() if n == name and dim in sizes})
         for name, array in sample.items()}
        for sample in samples
    ]  # fmt: skip


def _resized(array: np.ndarray, sizes: Mapping[int, int]) -> np.ndarray:
    for axis, size in sizes.items():
        array = repeated(array, size, axis)
    return array


def alike(samples: Sequence[Tensors]) -> list[Tensors]:
    """The samples of the size that most of them have: a batch has one size."""
    largest = max(of_equal_sizes(samples), key=len)
    return [samples[index] for index in largest]


def batch_of(samples: Sequence[Tensors], rows: int, *, batched: bool) -> Tensors:
    """One call's inputs: `rows` samples of one size, again from the first where there are fewer."""
    if not batched:
        return dict(samples[0])
    return stacked([samples[index % len(samples)] for index in range(rows)])


def described(samples: Sequence[Tensors], sizes: Mapping[str, int]) -> str:
    """For the result: what every contender was given."""
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in samples[0].items())
    sized_to = f", with {', '.join(f'{name} = {size}' for name, size in sizes.items())}" if sizes else ""
    return f"golden samples{sized_to}: {shapes}"
