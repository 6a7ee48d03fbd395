"""Shapes as ModelConfig has them: -1 is a dynamic dimension, and `reshape` puts another shape behind `dims`."""

from __future__ import annotations

import math
from collections.abc import Sequence


def element_counts(dims: Sequence[int]) -> list[int]:
    """The number of elements before, between and after dynamic dimensions.

    A reshape keeps them: [2, 4, -1, 6] can become [8, -1, 1, 6].
    """
    counts = [1]
    for dim in dims:
        if dim == -1:
            counts.append(1)
        else:
            counts[-1] *= dim
    return counts


def reshaped(shape: Sequence[int], before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
    """A tensor's shape after the reshape from dims `before` to `after`, as Triton does it.

    The n-th dynamic dimension keeps its size. Raises ValueError for a shape that `before` does not allow.
    """
    if len(shape) != len(before) or any(dim not in (-1, size) for dim, size in zip(before, shape, strict=True)):
        raise ValueError(f"shape {list(shape)} does not fit dims {list(before)}")
    sizes = iter([size for size, dim in zip(shape, before, strict=True) if dim == -1])
    found = tuple(next(sizes) if dim == -1 else dim for dim in after)
    if math.prod(found) != math.prod(shape):
        raise ValueError(f"dims {list(before)} cannot become {list(after)}")
    return found
