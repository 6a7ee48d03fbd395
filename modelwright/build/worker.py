"""A worker process: runs the steps of one builder, one after the other, and says how each went.

One builder a process: its modules are imported under their own names, its ML framework once, and nothing that another
builder does to the interpreter can change its result.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from modelwright.build.executor import Done, Failed, Job
from modelwright.errors import ModelwrightError, StepError
from modelwright.fsops import disk_full
from modelwright.kinds.registry import kind_of

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(handle: int) -> None:
    """Serve the jobs that come over a socket until it closes."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    connection: Connection[Done | Failed, Job] = Connection(handle)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        _log_to(job.staged / "log.txt")
        result = run_job(job)
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(result)


def run_job(job: Job) -> Done | Failed:
    """Run one step. Whatever it raises becomes a `Failed`."""
    started = time.perf_counter()
    try:
        kind_of(job.context.builder).check_needs(job.context.builder.file)
        facts = job.context.function.load()(job.context, job.staged / "files")
        return Done(facts, time.perf_counter() - started)
    except ModelwrightError as error:
        return Failed(error, traceback.format_exc())
    except OSError as error:
        return Failed(disk_full(error, job.staged), traceback.format_exc())
    except MemoryError:
        where = f"{job.context.builder.file}: {job.context.function.name}: out of memory"
        return Failed(StepError(where, "make the model or its batch smaller"), traceback.format_exc())
    except Exception:
        return Failed(None, traceback.format_exc())


def _log_to(log: Path) -> None:
    """Send everything printed, by Python or by native code, to the step's log."""
    sys.stdout.flush()
    sys.stderr.flush()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _die_with_parent() -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
