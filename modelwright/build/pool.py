"""The executor of this machine: worker processes, at most one a builder, each a fresh interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from modelwright.build.executor import Done, Failed, Job
from modelwright.errors import StepError

_POLL_S = 0.1
# Not multiprocessing's own start: it would run the caller's script again in every worker.
_COMMAND = "import sys; sys.path.remove(''); from modelwright.build.worker import main; main(int(sys.argv[1]))"


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    threads: int
    job: Job | None = None


class WorkerPool:
    """An `Executor` with `threads` threads for all jobs together."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers: dict[str, _Worker] = {}
        self._leaving: list[_Worker] = []

    def capacity(self) -> int:
        return max(0, self.threads - sum(worker.threads for worker in self._workers.values() if worker.job))

    def submit(self, job: Job) -> None:
        worker = self._workers.get(job.model)
        if worker is None or worker.threads != job.threads:
            self.retire(job.model)
            worker = self._workers[job.model] = self._start(job.threads)
        worker.job = job
        worker.connection.send(job)

    def results(self) -> list[tuple[Job, Done | Failed]]:
        busy = {model: worker for model, worker in self._workers.items() if worker.job}
        ready = wait([worker.connection for worker in busy.values()], timeout=_POLL_S)
        ended: list[tuple[Job, Done | Failed]] = []
        for model, worker in busy.items():
            if worker.connection not in ready:
                continue
            job, worker.job = cast(Job, worker.job), None
            try:
                ended.append((job, worker.connection.recv()))
            except (EOFError, ConnectionResetError):
                self._workers.pop(model)
                ended.append((job, self._died(worker, job)))
        return ended

    def retire(self, model: str) -> None:
        worker = self._workers.pop(model, None)
        if worker:
            worker.connection.close()
            # The process ends by itself. Those that have ended are reaped here, not at the end of a long build.
            self._leaving = [*(other for other in self._leaving if other.process.poll() is None), worker]

    def close(self) -> None:
        for worker in self._workers.values():
            worker.connection.close()
            if worker.job:
                worker.process.kill()
        for worker in (*self._workers.values(), *self._leaving):
            worker.process.wait()
        self._workers.clear()

    def _start(self, threads: int) -> _Worker:
        ours, theirs = Pipe()
        command = [sys.executable, "-c", _COMMAND, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=_environment(threads))
        theirs.close()
        return _Worker(process, ours, threads)

    def _died(self, worker: _Worker, job: Job) -> Failed:
        worker.process.wait()
        code = worker.process.returncode
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "the machine may be out of memory" if code == -signal.SIGKILL else ""
        return Failed(
            StepError(f"{job.context.builder.file}: {job.context.function.name}: its process died ({reason})", hint), ""
        )


def _environment(threads: int) -> dict[str, str]:
    """Variables that libraries read once, when they are loaded."""
    bounds = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # A build must not download on its own: its inputs are named in its step keys.
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **bounds, **offline}
