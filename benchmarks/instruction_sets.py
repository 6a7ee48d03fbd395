"""onnxruntime as it is on an older CPU: a copy of its package that believes the system saves no AVX-512 registers.

MLAS, onnxruntime's kernels, asks the CPU (cpuid) and the operating system (xgetbv) when the library is loaded; neither
can be told otherwise. In the copy each `xgetbv` is three other bytes, which say that the system saves what AVX needs
and no more. The kernels are then those of a CPU with AVX2 and without VNNI. Their speed is this CPU's.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

_XGETBV = b"\x0f\x01\xd0"
_AVX_ONLY = (
    b"\x6a\x06\x58"  # push 6; pop rax: bits 1 and 2, the registers of SSE and AVX (Intel's manual, volume 1, 13.3)
)
_MOST = 16  # places: 5 in onnxruntime 1.27; many more would be data that look alike


def without_avx512(folder: Path) -> Path:
    """A folder for PYTHONPATH with such a copy. Raises RuntimeError where the library has no place to change."""
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    package = folder / "onnxruntime"
    shutil.copytree(Path(spec.origin).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (library,) = (package / "capi").glob("onnxruntime_pybind11_state*.so")
    code = library.read_bytes()
    places = code.count(_XGETBV)
    if not 0 < places <= _MOST:
        raise RuntimeError(f"{library.name} has {places} times xgetbv: its kernels cannot be chosen here")
    library.write_bytes(code.replace(_XGETBV, _AVX_ONLY))
    return folder
