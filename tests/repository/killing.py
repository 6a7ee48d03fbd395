"""Operations in a forked process that counts its file operations, and dies, or meets a full disk, at one of them."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelwright.errors import ModelwrightError

_TAKE_SPACE = ("open", "os.mkdir", "os.rename", "os.link")
_WRITES = (*_TAKE_SPACE, "os.remove", "os.rmdir", "os.chmod", "os.truncate")


@dataclass(frozen=True)
class Ended:
    """How the process ended. `error` is the message of a ModelwrightError, `bug` the traceback of any other one."""

    killed: bool = False
    operations: int = 0  # of a process that was not killed
    error: str = ""
    bug: str = ""

    @property
    def done(self) -> bool:
        return not (self.killed or self.error or self.bug)


def in_child(
    action: Callable[[], object],
    *,
    kill_at: int | None = None,
    kill_after_s: float | None = None,
    fail_at: int | None = None,
    error: int = errno.ENOSPC,
) -> Ended:
    """Run it in a forked process.

    It dies by SIGKILL at file operation `kill_at`, counted from 1, or after a time; from operation `fail_at` on, each
    fails with `error`, as on a disk that is full (ENOSPC: files can still be removed) or read-only (EROFS).
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        ended = Ended(bug="it ended without a word")
        try:
            ended = _run(action, kill_at, fail_at, error)
        finally:
            os.write(writer, pickle.dumps(ended))
            os._exit(0)
    os.close(writer)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return pickle.loads(answer) if answer else Ended(killed=True)


def _run(action: Callable[[], object], kill_at: int | None, fail_at: int | None, error: int) -> Ended:
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if _is_write(event, arguments):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            failing = _TAKE_SPACE if error == errno.ENOSPC else _WRITES
            if fail_at is not None and count >= fail_at and event in failing:
                raise OSError(error, os.strerror(error), str(arguments[0]) if arguments else "")

    sys.addaudithook(hook)
    try:
        action()
    except ModelwrightError as failed:
        return Ended(operations=count, error=str(failed))
    except BaseException:
        return Ended(operations=count, bug=traceback.format_exc())
    return Ended(operations=count)


def _is_write(event: str, arguments: tuple[Any, ...]) -> bool:
    """Also `shutil.…` and the look-up of renameat2, which are no writes, but moments to be killed at."""
    if event == "open":
        path, flags = arguments[0], arguments[2]
        if not isinstance(flags, int) or str(path).startswith(("/proc/", "/dev/")):
            return False
        return bool(flags & (os.O_WRONLY | os.O_RDWR))
    return event in _WRITES or event.startswith(("shutil.", "ctypes.dlsym"))
