"""What a server's processes use: memory, and the CPU time, which a neighbour on the machine hardly changes.

A process's own clock (clock_getcpuclockid(3)) counts in nanoseconds, has the time of its ended threads, and leaves out
what the hypervisor took away. /proc/PID/stat counts in hundredths of a second; /proc/PID/schedstat is of the main
thread alone. Instructions would be steadier still. They are not read: no machine at hand lets a program count them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CPUCLOCK_SCHED = 2  # linux/posix-timers_types.h: the time that the scheduler counted


@dataclass(frozen=True)
class Usage:
    """`time_ns`: when it was read, of the monotonic clock; `cpu_ns`: so far, by process id; memory: resident, now."""

    time_ns: int
    cpu_ns: Mapping[int, int]
    memory_bytes: int


def usage(pid: int) -> Usage | None:
    """Of a process and all below it: the instances of Python models are processes of their own. None: it has ended."""
    import psutil

    try:
        server = psutil.Process(pid)
        processes = [server, *server.children(recursive=True)]
        memory_bytes = sum(process.memory_info().rss for process in processes)
    except psutil.Error:
        return None
    cpu_ns = {process.pid: spent for process in processes if (spent := _cpu_ns(process.pid)) is not None}
    return Usage(time.monotonic_ns(), cpu_ns, memory_bytes) if pid in cpu_ns else None


def cpu_s(before: Usage | None, after: Usage | None) -> float | None:
    """CPU seconds in between. None if it is not known: what a process used that has ended meanwhile is lost."""
    if before is None or after is None or not before.cpu_ns.keys() <= after.cpu_ns.keys():
        return None
    return sum(spent - before.cpu_ns.get(pid, 0) for pid, spent in after.cpu_ns.items()) * 1e-9


def _cpu_ns(pid: int) -> int | None:
    """None if the process has ended."""
    try:
        return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)
    except OSError:
        return _from_stat(pid)


def _from_stat(pid: int) -> int | None:
    """In clock ticks: for a kernel that does not let one read another process's clock."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
