"""The executor of this machine: worker processes, at most one a builder, each a fresh interpreter."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from modelwright.build.executor import Done, Failed, Job, StepProgress
from modelwright.build.faults import one_line_of
from modelwright.errors import StepError
from modelwright.progress import Tell

_POLL_S = 0.1
_ENDING_S = 5  # for a process that closed its connection and should end
# Not multiprocessing's own start: it would run the caller's script again in every worker.
_COMMAND = "import sys; sys.path.remove(''); from modelwright.build.worker import main; main(int(sys.argv[1]))"


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]
    threads: int
    job: Job | None = None
    tell: Tell | None = None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


class WorkerPool:
    """An `Executor` with `threads` threads for all jobs together."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers: dict[str, _Worker] = {}
        self._leaving: list[_Worker] = []

    def capacity(self) -> int:
        return max(0, self.threads - sum(worker.threads for worker in self._workers.values() if worker.job))

    def submit(self, job: Job, tell: Tell) -> None:
        sent = pickle.dumps(job)
        worker = self._workers.get(job.model)
        if worker is None or worker.threads != job.threads or not worker.alive:
            self.retire(job.model)
            worker = self._workers[job.model] = self._start(job.threads)
        worker.job, worker.tell = job, tell
        with suppress(BrokenPipeError, ConnectionResetError):  # it ends just now, which `results` reports
            worker.connection.send_bytes(sent)

    def results(self) -> list[tuple[Job, Done | Failed]]:
        busy = {model: worker for model, worker in self._workers.items() if worker.job}
        ready = wait([worker.connection for worker in busy.values()], timeout=_POLL_S)
        ended: list[tuple[Job, Done | Failed]] = []
        for model, worker in busy.items():
            # A process that a step started may hold the connection open after the worker's own end.
            if worker.connection not in ready and (worker.alive or worker.connection.poll()):
                continue
            try:
                answer = worker.connection.recv_bytes() if worker.connection.poll() else b""
            except (EOFError, OSError):
                answer = b""
            result = _read(answer) if answer else None
            if isinstance(result, StepProgress):
                cast(Tell, worker.tell)(result.text)
                continue
            job, worker.job = cast(Job, worker.job), None
            if result is None:
                self._workers.pop(model).connection.close()
            ended.append((job, result or _died(worker, job)))
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


def _read(answer: bytes) -> Done | Failed | StepProgress:
    """What a worker sent. An error of a class that only the worker has is a fault like any other."""
    try:
        result: Done | Failed | StepProgress = pickle.loads(answer)  # noqa: S301  (from our own child)
        return result
    except Exception as error:
        return Failed(None, traceback.format_exc(), f"its result cannot be read: {one_line_of(error)}")


def _died(worker: _Worker, job: Job) -> Failed:
    """A worker that ended in the middle of a step."""
    try:
        code = worker.process.wait(_ENDING_S)
    except subprocess.TimeoutExpired:  # it closed all its files and goes on
        worker.process.kill()
        code = worker.process.wait()
    names = {item.value: item.name for item in signal.Signals}
    reason = f"signal {names.get(-code, -code)}" if code < 0 else f"exit code {code}"
    hint = "the log may say more: the step, or a library that it calls, ended the process"
    if code == -signal.SIGKILL:
        hint = "the machine may be out of memory"
    where = f"{job.context.builder.file}: {job.context.function.name}"
    return Failed(StepError(f"{where}: its process died ({reason})", hint), "")


def _environment(threads: int) -> dict[str, str]:
    """Variables that libraries read once, when they are loaded."""
    bounds = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    # A build must not download on its own: its inputs are named in its step keys.
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # A thread that waits for others sleeps. By default it spins, and takes the core that the others need: where more
    # runs than there are cores, an epoch of examples/solar_cells took 70 CPU seconds in place of 8.
    patient = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"} if threads > 1 else {}
    return {**patient, **os.environ, **bounds, **offline}
