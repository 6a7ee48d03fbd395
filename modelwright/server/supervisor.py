"""Runs one tritonserver and never lets it outlive its purpose. A script of its own: `python -I -S supervisor.py …`.

Why not start tritonserver directly: its Python backend spawns one process per model instance and keeps shared-memory
files in /dev/shm, and neither is cleaned up when the server, or the process that started it, is killed. A mere
PR_SET_PDEATHSIG does not do: it fires when the *thread* that started the server ends, and misses grandchildren.

Contract: standard input stays open as long as the server should run; the server's pid is printed as one line; standard
error goes to the log, and so does everything the server prints. The server is stopped (SIGTERM, then SIGKILL to its
process group) when standard input closes, when the parent is gone, or on SIGTERM. Exits with the server's exit code, or
128 + N if signal N ended it.

Only the standard library, and only a little of it: this adds to the start-up time of every server.
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
_POLL_S = 0.5  # only for what no file descriptor announces: the parent's death while a fork of it holds our stdin open


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
    """Live processes that are ours or, once their own parent has died, became ours."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return []


def _has_models(server: subprocess.Popen[bytes]) -> bool:
    """Whether model processes are still there. True when in doubt."""
    try:
        return any((task / "children").read_text() for task in Path(f"/proc/{server.pid}/task").iterdir())
    except OSError:
        return True


def _terminate(server: subprocess.Popen[bytes], grace_s: float) -> None:
    """Let requests in flight finish and models finalize, for at most `grace_s`.

    tritonserver looks once per second whether its models are gone; there is nothing left to wait for once they are.
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
    """Kill what is left of the group, reap it, and remove its shared memory."""
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
