"""The processes of the contenders, seen from the command: started together, told one at a time what to do."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from modelwright.bench.child import ChildAnswer, ChildFailure, Evaluate, Load, PrepareBatch, TimeBatch
from modelwright.fsops import log_file
from modelwright.triton.tensors import Tensors

_PATIENCE_S = 300.0  # for one order; torch.compile of a large model takes minutes
_ENDING_S = 5.0
# Not multiprocessing's own start: it would run the caller's script again in every child.
_COMMAND = "import sys; sys.path.remove(''); from modelwright.bench.child import main; main(int(sys.argv[1]))"


class ContenderError(Exception):
    """A contender that cannot be measured; its text is the reason."""


class Child:
    """One contender in its process."""

    def __init__(self, load: Load, threads: int, cache: Path, log: Path) -> None:
        ours, theirs = Pipe()
        with log_file(log).open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdout=output,
                stderr=output,
                env=_environment(threads, cache),
            )
        theirs.close()
        self._connection: Connection[Any, Any] = ours
        self._first: tuple[Load, int] | None = (load, threads)
        self.cpu_s = 0.0
        self.memory_bytes: int | None = None

    def load(self) -> None:
        """Load the model. Raises ContenderError."""
        self._ask(self._first)
        self._first = None

    def prepare(self, batch: int, feed: Tensors, warmup_s: float) -> None:
        """Raises ContenderError."""
        self._ask(PrepareBatch(batch, feed, warmup_s))

    def time(self, batch: int, seconds: float) -> tuple[int, ...]:
        """Nanoseconds of each call. Raises ContenderError."""
        return self._ask(TimeBatch(batch, seconds)).calls_ns

    def metrics(self) -> dict[str, float]:
        """What `evaluate` says of a framework's form. Raises ContenderError."""
        memory_bytes = self.memory_bytes
        found = dict(self._ask(Evaluate()).metrics)
        self.memory_bytes = memory_bytes  # of inference alone
        return found

    def _ask(self, order: Any) -> ChildAnswer:
        try:
            self._connection.send(order)
            if not self._connection.poll(_PATIENCE_S):
                self.close()
                raise ContenderError(f"it took longer than {_PATIENCE_S:g} s")
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise ContenderError(self._died()) from None
        if isinstance(answer, ChildFailure):
            raise ContenderError(answer.reason)
        assert isinstance(answer, ChildAnswer)
        self.cpu_s, self.memory_bytes = answer.cpu_s, answer.memory_bytes
        return answer

    def _died(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_S)
        code = self._process.poll()
        if code is not None and code < 0:
            memory = ": the machine may be out of memory" if code == -signal.SIGKILL else ""
            return f"its process died (signal {signal.Signals(-code).name}{memory})"
        return f"its process died (exit code {code})"

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def children(loads: Mapping[str, Load], threads: int, cache: Path, log: Path) -> Iterator[dict[str, Child]]:
    """A process for each contender, not yet loaded; they end with the block."""
    with contextlib.ExitStack() as stack:
        started: dict[str, Child] = {}
        for name, load in loads.items():
            child = started[name] = Child(load, threads, cache, log)
            stack.callback(child.close)
        yield started


def _environment(threads: int, cache: Path) -> dict[str, str]:
    """Variables that libraries read once, when they are loaded."""
    bounds = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    return {**os.environ, **bounds, **offline, **compiled}
