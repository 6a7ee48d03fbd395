"""Worker processes, at most one a builder, within a number of threads. Each is a fresh interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from modelwright.build.worker import Done, Failed, Job
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


class Pool:
    """Runs jobs. `submit` where `can_take` says so, `results` for what has ended, `close` in the end."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers: dict[str, _Worker] = {}
        self._leaving: list[_Worker] = []

    @property
    def running(self) -> int:
        return sum(worker.job is not None for worker in self._workers.values())

    @property
    def full(self) -> bool:
        return sum(worker.threads for worker in self._workers.values() if worker.job) >= self.threads

    @property
    def idle(self) -> list[str]:
        """Models whose worker has nothing to do at the moment."""
        return [model for model, worker in self._workers.items() if worker.job is None]

    def can_take(self, model: str, threads: int) -> bool:
        """Whether a step of a model could start now. One that wants more threads than there are runs alone."""
        if model in self._workers and self._workers[model].job:
            return False
        busy = sum(worker.threads for worker in self._workers.values() if worker.job)
        return busy == 0 or busy + threads <= self.threads

    def submit(self, model: str, job: Job, threads: int) -> None:
        worker = self._workers.get(model)
        if worker is None or worker.threads != threads:
            self.retire(model)
            worker = self._workers[model] = self._start(threads)
        worker.job = job
        worker.connection.send(job)

    def results(self) -> list[tuple[str, Job, Done | Failed]]:
        """What has ended, after a short wait when nothing has yet."""
        busy = {model: worker for model, worker in self._workers.items() if worker.job}
        ready = wait([worker.connection for worker in busy.values()], timeout=_POLL_S)
        ended = []
        for model, worker in busy.items():
            if worker.connection not in ready:
                continue
            job, worker.job = cast(Job, worker.job), None
            try:
                ended.append((model, job, worker.connection.recv()))
            except (EOFError, ConnectionResetError):
                self._workers.pop(model)
                ended.append((model, job, self._died(worker, job)))
        return ended

    def retire(self, model: str) -> None:
        """Let an idle worker go: its builder has nothing left to do."""
        worker = self._workers.pop(model, None)
        if worker:
            worker.connection.close()
            # It leaves by itself; those that have left are no zombies for the rest of a long build.
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
        builder = job.context.builder
        return Failed(StepError(f"{builder.file}: {job.context.function.name}: its process died ({reason})", hint), "")


def _environment(threads: int) -> dict[str, str]:
    """What libraries read once, when they are loaded."""
    bounds = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # What these would reach for by themselves a build must not: its inputs are named in its key.
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **bounds, **offline}
