"""Tensors in files of a model, as the server reads them: data of a warm-up or of an initial state.

Numbers are little-endian, row by row. A string is its length in four bytes, little-endian, and its bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

STRING = "TYPE_STRING"
_LENGTH_BYTES = 4  # in front of each string
_BITS = re.compile(r"TYPE_[A-Z]+(\d+)")


def raw(array: np.ndarray[Any, Any]) -> bytes:
    """A tensor's bytes; strings are objects of str or bytes."""
    import numpy as np

    if array.dtype != object:
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    parts = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "little") + part for part in parts)


def size_bytes(data_type: str, dims: Sequence[int]) -> int | None:
    """The size of a tensor of "TYPE_FP32" or the like; None for strings, whose size depends on their lengths."""
    if data_type == STRING:
        return None
    bits = _BITS.fullmatch(data_type)
    item = int(bits[1]) // 8 if bits else 1 if data_type == "TYPE_BOOL" else 0
    return item * math.prod(int(dim) for dim in dims)


def count_strings(data: bytes) -> int | None:
    """How many strings a file holds; None if it ends in the middle of one."""
    start = count = 0
    while start + _LENGTH_BYTES <= len(data):
        start += _LENGTH_BYTES + int.from_bytes(data[start : start + _LENGTH_BYTES], "little")
        count += 1
    return count if start == len(data) else None
