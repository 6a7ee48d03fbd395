"""An executor in this process: no worker starts, so builder code runs under the caller's debugger or test.

Modules of a builder's folder are forgotten after each step, since the next builder's have the same names. What code
changes in the interpreter otherwise (environment variables, settings of libraries) stays: a build that must not depend
on it uses `WorkerPool`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TextIO

from modelwright import progress
from modelwright.build.executor import Done, Failed, Job
from modelwright.build.worker import run_job
from modelwright.progress import Tell


class InlineExecutor:
    """An `Executor` that runs each job when it is submitted."""

    def __init__(self) -> None:
        self._ended: list[tuple[Job, Done | Failed]] = []

    def capacity(self) -> int:
        return 0 if self._ended else 1

    def submit(self, job: Job, tell: Tell) -> None:
        with (
            progress.told_to(partial(_outside, tell, sys.stdout, sys.stderr)),
            (job.staged / "log.txt").open("a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
            _modules_forgotten(job.context.builder.folder),
        ):
            self._ended.append((job, run_job(job)))

    def results(self) -> list[tuple[Job, Done | Failed]]:
        ended, self._ended = self._ended, []
        return ended

    def retire(self, model: str) -> None: ...

    def close(self) -> None: ...


def _outside(tell: Tell, out: TextIO, err: TextIO, text: str) -> None:
    """Tell something where the caller's own output goes, not into the log of the step."""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        tell(text)


@contextlib.contextmanager
def _modules_forgotten(folder: Path) -> Iterator[None]:
    """Forget the modules of a folder afterwards, and how they were found."""
    path, path_hooks = list(sys.path), list(sys.path_hooks)
    try:
        yield
    finally:
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[name]
        sys.path[:], sys.path_hooks[:] = path, path_hooks
        for cached in list(sys.path_importer_cache):
            if Path(cached).is_relative_to(folder):
                del sys.path_importer_cache[cached]
