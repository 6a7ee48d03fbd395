"""Named tensors as files: golden samples and reference outputs.

An `.npz` that `numpy.load` opens without pickle; equal tensors give equal bytes. numpy needs pickle for string tensors
(object arrays of bytes), so each is kept as two plain arrays: `NAME#bytes` (uint8) and `NAME#ends` (int64, of the
tensor's shape), the end offset of each element. It does not know bfloat16, which is kept as its bits: `NAME#bf16`
(uint16).
"""

from __future__ import annotations

import contextlib
import pickle
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from modelwright.errors import TensorFileError, one_line
from modelwright.fsops import open_file
from modelwright.triton.arrays import BF16, datatype_of, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

    Tensors = dict[str, "np.ndarray[Any, Any]"]
else:
    Tensors = dict

_BITS = "#bf16"
_SMALL_BYTES = 256_000_000
_MOST_GROWTH = 100
# What numpy, zipfile and zlib raise on damaged or malicious files.
_DAMAGE = (
    *(ValueError, LookupError, TypeError, ArithmeticError, EOFError, MemoryError, NotImplementedError, RuntimeError),
    *(AttributeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile, zlib.error, pickle.UnpicklingError),
)


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
    """Read what `save_tensors` wrote; strings come back as object arrays of bytes, bfloat16 as that of ml_dtypes.

    Raises TensorFileError for a file that is damaged, has other content, or would unpack to far more than it is.
    """
    with damage_named(path), open_file(path) as file:
        _check_growth(path, file)
        return _read(file)


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Raise TensorFileError for what reading a file, or what was read from it, raises where the file is at fault."""
    try:
        yield
    except _DAMAGE as error:
        hint = "write it with numpy.savez, or restore it"
        if "allow_pickle" in str(error):
            hint = "its strings are pickled, which could run code: save them as bytes, array.astype('S')"
        reason = one_line(error) or type(error).__name__
        raise TensorFileError(f"{path}: cannot be read as .npz: {reason}", hint) from None
    except OSError as error:
        raise TensorFileError(f"{path}: cannot be read: {error.strerror or error}") from None


def _check_growth(path: Path, file: BinaryIO) -> None:
    """What `save_tensors` writes is not compressed; a small file of others can hold much."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    size = path.stat().st_size
    file.seek(0)
    if unpacked > max(_SMALL_BYTES, _MOST_GROWTH * size):
        raise TensorFileError(f"{path}: {size:,} bytes that would unpack to {unpacked:,}", "write it again")


def _read(file: BinaryIO) -> Tensors:
    import numpy as np

    tensors: Tensors = {}
    with np.load(file, allow_pickle=False) as archive:
        for key in archive.files:
            if key.endswith("#bytes"):
                continue
            if key.endswith(_BITS):
                tensors[key.removesuffix(_BITS)] = archive[key].view(numpy_dtype(BF16))
            elif key.endswith("#ends"):
                name = key.removesuffix("#ends")
                tensors[name] = _strings(archive[key], archive[f"{name}#bytes"].tobytes())
            else:
                tensors[key] = archive[key]
    return tensors


def _strings(ends: np.ndarray[Any, Any], data: bytes) -> np.ndarray[Any, Any]:
    import numpy as np

    flat = np.empty(ends.size, dtype=object)
    start = 0
    for index, end in enumerate(ends.ravel().tolist()):
        flat[index], start = data[start:end], end
    return flat.reshape(ends.shape)
