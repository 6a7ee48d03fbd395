"""The schedule of an open loop, and a timer that keeps it to better than a tenth of a millisecond."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import numpy as np

Arrivals = Literal["poisson", "constant"]
_CHUNK = 4096
_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 1, 0o4000, 0o2000000, 1


def schedule(rate: float, arrivals: Arrivals, seed: int, part: int = 0, parts: int = 1) -> Iterator[int]:
    """Nanoseconds from the start at which one of `parts` processes sends, endlessly. `rate` is that of all together.

    Poisson: independent streams of rate / parts, whose sum is Poisson of `rate`. Constant: every parts-th tick.
    The same seed gives the same times.
    """
    if arrivals == "constant":
        period_ns = 1e9 / rate
        number = part
        while True:
            yield round(number * period_ns)
            number += parts
    generator = np.random.default_rng([seed, part])
    now_ns = 0.0
    while True:
        times = now_ns + np.cumsum(generator.exponential(1e9 * parts / rate, _CHUNK))
        now_ns = float(times[-1])
        yield from times.astype(np.int64).tolist()


class Timer:
    """Waits for a time of the monotonic clock, while other greenlets run.

    gevent's own timers have the resolution of epoll, a millisecond. With timerfd (Linux), this one wakes up within some
    ten microseconds. One greenlet uses it at a time.
    """

    def __init__(self) -> None:
        from gevent import get_hub

        self._hub = get_hub()
        self._fd = _timerfd() if sys.platform == "linux" else -1
        self._watcher: Any = self._hub.loop.io(self._fd, 1) if self._fd >= 0 else None

    def wait_until(self, time_ns: int) -> bool:
        """Return True at `time_ns` of time.monotonic_ns(); False, at once, if that is past."""
        if time.monotonic_ns() >= time_ns:
            return False
        if self._watcher is None:
            self._sleep_until(time_ns)
            return True
        _arm(self._fd, time_ns)
        self._hub.wait(self._watcher)
        os.read(self._fd, 8)
        return True

    def _sleep_until(self, time_ns: int) -> None:
        import gevent

        while (left_ns := time_ns - time.monotonic_ns()) > 0:
            gevent.sleep(left_ns / 1e9)

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
            os.close(self._fd)


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)  # os.timerfd_create needs Python 3.13


def _timerfd() -> int:
    """A timer's file descriptor, timerfd_create(2); -1 on an error."""
    return int(_libc().timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC))


def _arm(fd: int, time_ns: int) -> None:
    spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(*divmod(time_ns, 1_000_000_000)))
    if _libc().timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None):
        raise OSError(ctypes.get_errno(), "timerfd_settime")
