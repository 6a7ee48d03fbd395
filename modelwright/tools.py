"""Versions of the libraries a step uses, read from package metadata: nothing is imported to know its version."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

# Import names that differ from their distribution's name. A name that is neither here nor installed is not in the key.
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "sentence_transformers": "sentence-transformers",
    "google": "protobuf",
    "tensorrt_rtx": "tensorrt-rtx-cu12",
}
# Other distributions that provide the same import name, where the first one is not installed.
_ALTERNATIVES = {"xgboost": "xgboost-cpu"}


# Flag in /proc/cpuinfo → name, best first.
_INSTRUCTION_SETS = {
    "amx_int8": "AMX",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512bw": "AVX-512",
    "avx2": "AVX2",
    "i8mm": "Arm I8MM",
    "asimddp": "Arm dot product",
}


@cache
def version(import_name: str) -> str | None:
    """The installed version of the distribution that provides a top-level import name, or None."""
    for name in (distribution(import_name), _ALTERNATIVES.get(import_name)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            if name:
                return metadata.version(name)
    return None


def distribution(import_name: str) -> str:
    """The name of the distribution that provides a top-level import name, as a package index has it."""
    return _DISTRIBUTIONS.get(import_name, import_name.replace("_", "-"))


def python() -> str:
    """'3.11': pickles, vendored wheels and random numbers can depend on it."""
    return ".".join(platform.python_version_tuple()[:2])


def cores() -> int:
    """The cores that this process may use, where the system says (not on macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def instruction_set() -> str:
    """The best of this CPU that integer arithmetic uses: "AVX-512 VNNI", "AVX2", …; the machine's name where the system
    does not say. The answers of an INT8 model depend on it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    found = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    flags = set(found.partition(":")[2].split())
    return next((name for flag, name in _INSTRUCTION_SETS.items() if flag in flags), platform.machine())


def third_party(imports: set[str]) -> dict[str, str]:
    """{distribution: version} of the installed libraries among these imported names."""
    names = {name.partition(".")[0] for name in imports if not name.startswith(".")} - sys.stdlib_module_names
    found = {name: version(name) for name in sorted(names)}
    return {name: known for name, known in found.items() if known}
