"""The GPUs of this machine, as CUDA numbers them, asked of the driver's library: nothing is imported or started.

What the driver shows is what a program can use: CUDA_VISIBLE_DEVICES counts. No memory of a GPU is taken.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Protocol

_LIBRARY = "libcuda.so.1"  # comes with the driver, and into containers with the NVIDIA Container Toolkit
_NAME_BYTES = 256
# CUdevice_attribute of cuda.h.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class Gpu:
    index: int  # as CUDA has it
    name: str  # "NVIDIA L4"
    compute_capability: str  # "8.9"


class Driver(Protocol):
    """libcuda.so.1, as far as it is called here. Every function returns 0, or an error's number."""

    def cuInit(self, flags: int) -> int: ...  # noqa: N802
    def cuDeviceGetCount(self, count: Any) -> int: ...  # noqa: N802
    def cuDeviceGet(self, device: Any, index: int) -> int: ...  # noqa: N802
    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int: ...  # noqa: N802
    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int: ...  # noqa: N802


def visible_gpus(driver: Driver | None = None) -> tuple[Gpu, ...]:
    """The GPUs that a program started here can use; none where there is no driver, or it does not work."""
    library = driver or _load()
    count = ctypes.c_int()
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = (_gpu(library, index) for index in range(count.value))
    return tuple(gpu for gpu in found if gpu)


def _load() -> Driver | None:
    try:
        library: Any = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    driver: Driver = library
    return driver


def _gpu(driver: Driver, index: int) -> Gpu | None:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    if (
        driver.cuDeviceGet(ctypes.byref(device), index)
        or driver.cuDeviceGetName(name, _NAME_BYTES, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    ):
        return None
    return Gpu(index, name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
