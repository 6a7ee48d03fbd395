"""A worker process: runs the steps of one builder, one after the other, and says how each went.

One builder a process: its modules are imported under their own names, its ML framework once, and nothing that another
builder does to the interpreter can change its result. Whatever a step does short of ending the process becomes a
`Failed`; when it ends the process, `pool` notices.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import time
import traceback
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from modelwright import progress
from modelwright.build.executor import Done, Failed, Job, StepProgress
from modelwright.build.faults import one_line_of
from modelwright.errors import ModelwrightError, StepError
from modelwright.facts.part import Facts
from modelwright.fsops import disk_error
from modelwright.training.session import session
from modelwright.variants.registry import check_needs

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(handle: int) -> None:
    """Serve the jobs that come over a socket until it closes."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    connection: Connection[Any, Any] = Connection(handle)
    process = os.getpid()
    while True:
        try:
            sent = connection.recv_bytes()
        except EOFError:
            return
        with progress.told_to(partial(_tell, connection, process)):
            answer = _answer(sent)
        if os.getpid() != process:  # a child that a step forked, and that came back from it: one process answers
            os._exit(0)
        connection.send_bytes(answer)


def _tell(connection: Connection[Any, Any], process: int, text: str) -> None:
    """Send what the step says of itself; from a child that it forked, nothing."""
    if os.getpid() == process:
        connection.send_bytes(pickle.dumps(StepProgress(text)))


def _answer(sent: bytes) -> bytes:
    """Run the job that was sent; its result, as it is sent back."""
    try:
        job: Job = pickle.loads(sent)  # noqa: S301  (from our own parent)
        _log_to(job.staged / "log.txt")
        result = run_job(job)
        sys.stdout.flush()
        sys.stderr.flush()
        return pickle.dumps(result)
    except BaseException as error:  # a job that cannot be read here, or a result that cannot be sent
        return pickle.dumps(Failed(None, traceback.format_exc(), one_line_of(error)))


def run_job(job: Job) -> Done | Failed:
    """Run one step. Whatever it raises becomes a `Failed`, also what ends a process. Ctrl-C passes through."""
    started = time.perf_counter()
    try:
        check_needs(job.context.builder, job.context.step)
        context = job.context
        with session(context.builder.file, context.checkpoints, context.say):
            facts = context.function.load()(context, job.staged / "files")
        if not isinstance(facts, Facts):
            raise TypeError(f"{job.context.function.reference} returned {type(facts).__name__}, expected Facts")
        return Done(facts, time.perf_counter() - started)
    except MemoryError:
        where = f"{job.context.builder.file}: {job.context.function.name}: out of memory"
        return Failed(StepError(where, "make the model or its batch smaller"), traceback.format_exc())
    except KeyboardInterrupt:
        raise  # in a worker only code raises it
    except BaseException as error:
        known = error if isinstance(error, ModelwrightError) else None
        if isinstance(error, OSError):
            known = disk_error(error, job.staged)
        return Failed(known, traceback.format_exc(), one_line_of(error))


def _log_to(log: Path) -> None:
    """Send everything printed, by Python or by native code, to the step's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    faulthandler.enable()  # a crash in native code leaves a traceback there, too


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
