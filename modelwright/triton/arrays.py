"""Triton's data types as numpy arrays have them, bfloat16 included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelwright.triton.dtypes import BY_NAME, BY_NUMPY

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

BF16 = "BF16"


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """numpy's type of Triton's: "FP32", "BF16", "BYTES"."""
    import numpy as np

    if datatype == BF16:
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(BY_NAME[datatype].numpy)


def datatype_of(array: Array) -> str:
    """Triton's name of an array's type; numpy's own name where Triton has no such type."""
    name = array.dtype.name
    return BY_NUMPY[name].name if name in BY_NUMPY else name


def repeated(array: Array, size: int, axis: int) -> Array:
    """The array with `size` values along an axis: its own again, or fewer of them. Where it has none there, zeros."""
    import numpy as np

    own = array.shape[axis]
    if own:
        taken: Array = np.take(array, np.arange(size) % own, axis=axis)
        return taken
    shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
    return np.full(shape, b"" if array.dtype == object else 0, array.dtype)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether values are floating-point numbers. For numpy, bfloat16 is raw bytes, of the kind "V"."""
    return dtype.kind == "f" or dtype.name == BY_NAME[BF16].numpy


def largest(dtype: np.dtype[Any]) -> float:
    """The largest number of a floating-point type."""
    import numpy as np

    if dtype.kind == "f":
        return float(np.finfo(dtype).max)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).max)


def rounded_to(tensors: dict[str, Array], types: Mapping[str, str]) -> dict[str, Array]:
    """Tensors with the floats rounded of those that are BF16 in `types`."""
    return {name: rounded(array, types.get(name, "")) for name, array in tensors.items()}


def rounded(array: Array, datatype: str) -> Array:
    """Floats as bfloat16 where the model takes BF16, which plain numpy code cannot make; else the array as it is."""
    return array.astype(numpy_dtype(BF16)) if datatype == BF16 and array.dtype.kind == "f" else array
