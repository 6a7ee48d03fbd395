"""Runs one tritonserver and stops it when it is no longer needed. A script: `python -I -S supervisor.py …`.

Why not start tritonserver directly: its Python backend starts a process per model instance and keeps shared-memory
files in /dev/shm. Neither is cleaned up when the server, or the process that started it, is killed. PR_SET_PDEATHSIG
alone is not enough: it fires when the *thread* that started the server ends, and does not reach grandchildren.

Contract: standard input stays open while the server should run. The server's pid is printed on one line. Standard error
and everything that the server prints go to the log. The server is stopped (SIGTERM, then SIGKILL to its process group)
when standard input closes, when the parent ends, or on SIGTERM. The exit code is the server's, or 128 + N if signal N
ended it.

It imports little, and only from the standard library: this adds to the start-up time of every server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_POLL_S = 0.5  # for the parent's death while a fork of it still holds our standard input open


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wakeups() -> int:
    """A descriptor that becomes readable when a child ends or when SIGTERM arrives."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return readable


class _Stop:
    requested = False


def _wait(server: subprocess.Popen[bytes], parent: int, wakeups: int, stop: _Stop) -> None:
    """Return when the server has ended, or should."""
    while server.poll() is None and not stop.requested and os.getppid() == parent:
        readable, _, _ = select.select([0, wakeups], [], [], _POLL_S)
        if wakeups in readable:
            os.read(wakeups, 4096)
        if 0 in readable and not os.read(0, 4096):
            return


def _children() -> list[int]:
    """Our child processes, and orphans that we adopted."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return []


def _has_models(server: subprocess.Popen[bytes]) -> bool:
    """Whether model processes are still running. True if that cannot be found out."""
    try:
        return any((task / "children").read_text() for task in Path(f"/proc/{server.pid}/task").iterdir())
    except OSError:
        return True


def _terminate(server: subprocess.Popen[bytes], grace_s: float) -> None:
    """Let requests in flight finish and models finalize, for at most `grace_s`.

    tritonserver checks once per second whether its models have ended; this does not wait for that check.
    """
    deadline = time.monotonic() + grace_s
    if grace_s > 0 and server.poll() is None:
        server.terminate()
    while server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        if not _has_models(server):
            time.sleep(0.05)  # its last log lines
            break


def _sweep(server: subprocess.Popen[bytes], shared_memory: str) -> None:
    """Kill the rest of the process group, reap it, and remove its shared memory."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
        except ChildProcessError:
            break
    # Where shm_open puts its files.
    for path in Path("/dev/shm").glob(f"{shared_memory}*"):  # noqa: S108
        path.unlink(missing_ok=True)


def main(parent: int, grace_s: float, shared_memory: str, command: list[str]) -> int:
    stop = _Stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: setattr(stop, "requested", True))
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wakeups = _wakeups()
    # preexec_fn is safe here: this process has one thread.
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True, preexec_fn=_die_with_parent
    )
    os.write(1, f"{server.pid}\n".encode())
    os.close(1)
    _wait(server, parent, wakeups, stop)
    _terminate(server, grace_s)
    _sweep(server, shared_memory)
    code = server.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
