"""Removes what a build step started elsewhere, however the step ends: `python -I -S guard.py CLEANUP [COMMAND…]`.

A step may be killed at any time: Ctrl-C ends worker processes with SIGKILL, which no `finally` survives. The container
or Job that it started would go on and hold a GPU. So this process stands between. It has a session of its own, which
Ctrl-C does not reach. It runs COMMAND, if there is one, until that ends or standard input closes: the step holds the
other end of it. Then it runs CLEANUP, a JSON list. The exit code is COMMAND's, or without one CLEANUP's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

_GRACE_S = 10
_CLEANUP_S = 60


def main(cleanup: list[str], command: list[str]) -> int:
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, lambda *_: None)  # not SIG_IGN, which COMMAND would inherit
    code = _run(command) if command else _wait()
    removed = _clean_up(cleanup)
    return code if command else removed


def _clean_up(command: list[str]) -> int:
    """The exit code of the command; 1 where it cannot run, or takes too long."""
    nothing = subprocess.DEVNULL
    try:
        return subprocess.run(
            command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=_CLEANUP_S, check=False
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return 1


def _wait() -> int:
    """Until standard input closes."""
    os.set_blocking(0, True)
    while os.read(0, 4096):
        pass
    return 0


def _run(command: list[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def stop() -> None:
        _wait()
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(_GRACE_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    threading.Thread(target=stop, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    code = main(json.loads(sys.argv[1]), sys.argv[2:])
    sys.stdout.flush()
    os._exit(code)  # a thread may still wait for standard input
