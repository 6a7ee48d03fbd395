"""Builds plans on this machine, in a process of its own: a crash of TensorRT ends that process and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelwright.errors import StepError
from modelwright.facts.plan import PlanRequest
from modelwright.gpus import visible_gpus
from modelwright.steps.context import StepContext
from modelwright.steps.plan_folders import PROGRAM

DEVICES = "CUDA_VISIBLE_DEVICES"


def build(inside: Path, out: Path, request: PlanRequest, context: StepContext) -> None:
    """Build the plan of a request on the first GPU that it is for. `plan_folders.accept` says how it went."""
    device = visible_device(request.compute_capability)
    if device is None:
        raise StepError(f"there is no GPU of compute capability {request.compute_capability} here any more")
    _run([str(inside), str(out)], {DEVICES: device}, context)


def check(inside: Path, out: Path, capabilities: Sequence[str], context: StepContext) -> None:
    """Try a request with TensorRT for RTX, without a GPU. `plan_folders.accept_check` says how it went."""
    _run([str(inside), str(out), "--check", ",".join(capabilities)], {DEVICES: ""}, context)


def visible_device(compute_capability: str) -> str | None:
    """The first GPU of a kind, as CUDA_VISIBLE_DEVICES names it; None where there is none."""
    gpus = [gpu for gpu in visible_gpus() if gpu.compute_capability == compute_capability]
    return _device(gpus[0].index, os.environ.get(DEVICES)) if gpus else None


def _device(index: int, visible: str | None) -> str:
    """The GPU that CUDA numbers `index` here: its numbers count those that are visible already."""
    return visible.split(",")[index].strip() if visible else str(index)


def _run(arguments: Sequence[str], variables: Mapping[str, str], context: StepContext) -> None:
    command = [sys.executable, "-m", PROGRAM, *arguments, "--with-parent"]
    timeout_s = context.plan_places.timeout_s
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=os.environ | variables,
    ) as process:
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                context.say(line.rstrip("\n"))
            code = process.wait()
        finally:
            expired = not timer.is_alive()
            timer.cancel()
            process.kill()
    if expired:
        raise StepError(
            f"no plan within {timeout_s:g} s, so the builder was stopped",
            "give it more: [tensorrt] timeout in modelwright.toml; or lower tensorrt.builder_level",
        )
    if code < 0:
        context.say(f"the plan builder was ended by signal {-code}")
