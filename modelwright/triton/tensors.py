"""Named tensors as files: golden samples and reference outputs.

An `.npz` that `numpy.load` opens without pickle; equal tensors give equal bytes. numpy needs pickle for string tensors
(object arrays of bytes), so each is kept as two plain arrays: `NAME#bytes` (uint8) and `NAME#ends` (int64, of the
tensor's shape), the end offset of each element. It does not know bfloat16, which is kept as its bits: `NAME#bf16`
(uint16).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.fsops import open_file
from modelwright.triton.arrays import BF16, datatype_of, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

    Tensors = dict[str, "np.ndarray[Any, Any]"]
else:
    Tensors = dict

_BITS = "#bf16"


def save_tensors(path: Path, tensors: Tensors) -> None:
    """Write tensors in the order of their names, uncompressed, with a fixed time for every array in the archive."""
    import numpy as np

    plain: dict[str, Any] = {}
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        if array.dtype == object:
            parts = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
            plain[f"{name}#bytes"] = np.frombuffer(b"".join(parts), dtype=np.uint8)
            plain[f"{name}#ends"] = np.cumsum([len(part) for part in parts], dtype=np.int64).reshape(array.shape)
        elif datatype_of(array) == BF16:
            plain[f"{name}{_BITS}"] = np.ascontiguousarray(array).view(np.uint16)
        else:
            plain[name] = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.savez(file, **plain)


def load_tensors(path: Path) -> Tensors:
    """Read what `save_tensors` wrote; strings come back as object arrays of bytes, bfloat16 as that of ml_dtypes."""
    import numpy as np

    tensors: Tensors = {}
    with open_file(path) as opened, np.load(opened, allow_pickle=False) as file:
        for key in file.files:
            if key.endswith("#bytes"):
                continue
            if key.endswith(_BITS):
                tensors[key.removesuffix(_BITS)] = file[key].view(numpy_dtype(BF16))
                continue
            if not key.endswith("#ends"):
                tensors[key] = file[key]
                continue
            name = key.removesuffix("#ends")
            ends, data = file[key], file[f"{name}#bytes"].tobytes()
            flat = np.empty(ends.size, dtype=object)
            start = 0
            for index, end in enumerate(ends.ravel().tolist()):
                flat[index], start = data[start:end], end
            tensors[name] = flat.reshape(ends.shape)
    return tensors
