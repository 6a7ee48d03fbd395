"""On what a training runs, and in which precision: chosen once, and said in the step's log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modelwright.text import TIMES, counted

_BF16_SINCE = 8  # compute capability (Ampere): bfloat16 in the tensor cores
_FP16_SINCE = 7  # Volta: float16 in the tensor cores; before them half precision is not faster
_NAMES = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Hardware:
    accelerator: str  # cuda, cpu
    devices: int
    precision: str  # 32, bf16, fp16
    reason: str

    def __str__(self) -> str:
        many = f"{self.devices} {TIMES} " if self.devices > 1 else ""
        return f"{many}{self.accelerator}, precision {self.precision}: {self.reason}"


def hardware_for(precision: str, devices: int | str) -> Hardware:
    """What this machine has. `auto` takes all GPUs, or the CPU.

    `auto` is 32 bits on a CPU. bfloat16 halves the time of convolutions where the CPU has AVX-512 BF16 or AMX, and
    takes longer elsewhere; and a training should come to the same on any CPU.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = max(gpus, 1) if devices == "auto" else int(devices)
    if gpus and count > gpus:
        raise ValueError(f"devices: this machine has {counted(gpus, 'GPU')}, asked for {count}")
    accelerator = "cuda" if gpus else "cpu"
    if precision != "auto":
        if precision == "fp16" and not gpus:
            raise ValueError("precision: fp16 needs a GPU; bf16 and 32 work on a CPU")
        return Hardware(accelerator, count, precision, "as asked for")
    if not gpus:
        return Hardware(accelerator, count, "32", "the same on every CPU")
    capability = min(torch.cuda.get_device_capability(index) for index in range(count))
    name = f"compute capability {capability[0]}.{capability[1]}"
    if capability[0] >= _BF16_SINCE:
        return Hardware(accelerator, count, "bf16", f"{name} has tensor cores for bfloat16")
    if capability[0] >= _FP16_SINCE:
        return Hardware(accelerator, count, "fp16", f"{name} has tensor cores for float16, not for bfloat16")
    return Hardware(accelerator, count, "32", f"{name} is not faster in half precision")


def fabric_on(hardware: Hardware) -> Any:
    """Lightning's Fabric: devices, processes and precision. Several devices train in processes of their own."""
    from lightning.fabric import Fabric

    return Fabric(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        strategy="ddp_spawn" if hardware.devices > 1 else "auto",
        precision=_NAMES[hardware.precision],
        loggers=[],
    )


@contextmanager
def repeatable(hardware: Hardware) -> Iterator[None]:
    """Take GPU kernels that give the same bits every time; torch warns of operations that have none.

    Without it, two trainings of a small convolutional net at 32 bits differed on an H200. On a CPU it changes nothing.
    """
    import torch

    if hardware.accelerator != "cuda":
        yield
        return
    # cuBLAS reads it when a stream first uses it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    tuned, cudnn.benchmark = cudnn.benchmark, False
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = tuned
