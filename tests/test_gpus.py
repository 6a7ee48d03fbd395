"""GPUs as the driver's library tells them."""

from __future__ import annotations

from typing import Any

from modelwright.gpus import Gpu, visible_gpus


class FakeDriver:
    """libcuda.so.1 with these devices; `fails` is the function that returns an error."""

    def __init__(self, *devices: tuple[str, int, int], fails: str = "") -> None:
        self.devices = devices
        self.fails = fails

    def _result(self, name: str) -> int:
        return 999 if name == self.fails else 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._result("cuInit")

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.devices)
        return self._result("cuDeviceGetCount")

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        device._obj.value = index
        return self._result("cuDeviceGet")

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = self.devices[device.value][0].encode()
        return self._result("cuDeviceGetName")

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        value._obj.value = self.devices[device.value][{75: 1, 76: 2}[attribute]]
        return self._result("cuDeviceGetAttribute")


def test_each_gpu_has_its_name_and_compute_capability() -> None:
    driver = FakeDriver(("NVIDIA H200", 9, 0), ("NVIDIA GeForce RTX 5090", 12, 0))
    assert visible_gpus(driver) == (Gpu(0, "NVIDIA H200", "9.0"), Gpu(1, "NVIDIA GeForce RTX 5090", "12.0"))


def test_a_driver_that_does_not_work_shows_none() -> None:
    for fails in ("cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute"):
        assert visible_gpus(FakeDriver(("NVIDIA L4", 8, 9), fails=fails)) == ()
    assert visible_gpus(FakeDriver()) == ()
