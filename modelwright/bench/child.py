"""The process of one contender: loads it, and times calls of it when it is told to.

It has the model alone, so its memory is the model's, and no other one's allocator or threads can change its speed.
While it waits for orders it uses no CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from modelwright.errors import ModelwrightError, one_line
from modelwright.project.spec import Builder
from modelwright.steps import bench
from modelwright.steps.context import StepContext
from modelwright.triton.tensors import Tensors

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_RESET_PEAK = "5"  # proc(5), /proc/pid/clear_refs
_FEWEST_WARM_UP = 2  # calls
_KILOBYTE = 1024


@dataclass(frozen=True)
class LoadFramework:
    """The source's module, of a torch step that `context.inputs` names, or of a Hugging Face directory."""

    context: StepContext
    compiled: bool


@dataclass(frozen=True)
class LoadOnnx:
    builder: Builder
    file: Path


@dataclass(frozen=True)
class PrepareBatch:
    """Take the inputs of a batch size, and run them until the model is warm."""

    batch: int
    feed: Tensors
    warmup_s: float


@dataclass(frozen=True)
class TimeBatch:
    batch: int
    seconds: float


@dataclass(frozen=True)
class Evaluate:
    """Of a framework: what the builder's `evaluate` says of the source."""


@dataclass(frozen=True)
class ChildAnswer:
    """`calls_ns`: how long each call took. `memory_bytes`: the peak since the model was loaded, less what the process
    had before. `cpu_s`: CPU seconds of the process so far."""

    calls_ns: tuple[int, ...] = ()
    memory_bytes: int | None = None
    cpu_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ChildFailure:
    reason: str


Load = LoadFramework | LoadOnnx
Order = PrepareBatch | TimeBatch | Evaluate


def main(handle: int) -> None:
    """Load what comes first over a socket, with how many threads; then follow orders until the socket closes."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    connection: Connection[Any, Any] = Connection(handle)
    contender: _Contender | None = None
    while True:
        try:
            order = connection.recv()
        except EOFError:
            return
        try:
            if contender is None:
                contender = _Contender(*order)
                answer: ChildAnswer | ChildFailure = contender.done()
            else:
                answer = contender.follow(order)
        except ModelwrightError as error:
            answer = ChildFailure(error.message + (f" ({error.hint})" if error.hint else ""))
        except MemoryError:
            answer = ChildFailure("out of memory")
        except Exception as error:  # of a library or of the builder's code: that contender's reason, not our end
            answer = ChildFailure(f"{type(error).__name__}: {one_line(error)[:300]}")
        connection.send(answer)


class _Contender:
    def __init__(self, load: Load, threads: int) -> None:
        if isinstance(load, LoadOnnx):
            bench.import_onnxruntime()
        else:
            bench.import_torch()
        with contextlib.suppress(OSError):  # a container may forbid it: then imports may be in the peak
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        self._before_bytes = _memory_bytes("VmRSS")
        if isinstance(load, LoadOnnx):
            self._prepare = bench.onnx_calls(load.builder, load.file, threads)
        else:
            self._prepare = bench.torch_calls(load.context, threads, compiled=load.compiled)
        self._load = load
        self._calls: dict[int, Callable[[], Any]] = {}

    def follow(self, order: Order) -> ChildAnswer:
        if isinstance(order, PrepareBatch):
            call = self._calls[order.batch] = self._prepare(order.feed)
            time_calls(call, order.warmup_s, _FEWEST_WARM_UP)
            return self.done()
        if isinstance(order, TimeBatch):
            return self.done(time_calls(self._calls[order.batch], order.seconds))
        assert isinstance(self._load, LoadFramework)
        return replace(self.done(), metrics=bench.torch_metrics(self._load.context))

    def done(self, calls_ns: tuple[int, ...] = ()) -> ChildAnswer:
        before, peak = self._before_bytes, _memory_bytes("VmHWM")
        memory = max(peak - before, 0) if peak is not None and before is not None else None
        return ChildAnswer(calls_ns, memory, time.process_time())


def time_calls(
    call: Callable[[], Any], seconds: float, fewest: int = 1, clock: Callable[[], int] = time.perf_counter_ns
) -> tuple[int, ...]:
    """Call again and again for this long; nanoseconds of each call. Garbage is collected before, not meanwhile."""
    taken: list[int] = []
    gc.collect()
    gc.disable()
    try:
        started = clock()
        while len(taken) < fewest or clock() - started < seconds * 1e9:
            before = clock()
            call()
            taken.append(clock() - before)
    finally:
        gc.enable()
    return tuple(taken)


def _memory_bytes(field: str) -> int | None:
    """VmRSS or VmHWM of this process: proc(5), /proc/pid/status."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * _KILOBYTE
    return None
