"""When the measured time of a Locust test begins and ends. Times are times of day, in nanoseconds.

It begins when all users have started and the warm-up after that is over, and lasts for `--run-time`. Locust's own timer
begins with the first user, so a test goes on for as long as its users took to start, and for the warm-up.
"""

from __future__ import annotations

import inspect
import time
from dataclasses import dataclass, field

import gevent

_TIMERS = ("stop_and_optionally_quit", "_stop_runners")  # Locust's functions that its timers of a run time call
_LATE_START_S = 60.0  # a test whose run time is over does not wait longer for users that do not start
_LONGEST_NAP_S = 0.1


@dataclass
class Timeline:
    """Of one test. `run_time_s`: 0 for a test that goes on until it is stopped."""

    warmup_s: float
    run_time_s: float
    began_ns: int = field(default_factory=time.time_ns)
    start_ns: int = 0  # of the measured time; 0 until all users have started
    stopped_ns: int = 0

    def users_have_started(self) -> None:
        self.start_ns = time.time_ns() + _ns(self.warmup_s)

    def stop(self) -> None:
        """The test ends: at once, or with the measured time if it is Locust's timer that ends it.

        While this waits, Ctrl-C or a click end the test by another call.
        """
        if not (self.run_time_s and _is_called_by_timer()):
            self.stopped_ns = self.stopped_ns or time.time_ns()
        while not self.stopped_ns:
            self._wait_for_end()

    def _wait_for_end(self) -> None:
        latest_ns = self.began_ns + _ns(_LATE_START_S)
        left_ns = (self.start_ns or latest_ns) + _ns(self.run_time_s) - time.time_ns()
        if left_ns > 0:
            gevent.sleep(min(left_ns / 1e9, _LONGEST_NAP_S))
        else:
            self.stopped_ns = self.stopped_ns or time.time_ns()

    def measured_ns(self) -> tuple[int, int]:
        """Start and end of the measured time. They are equal for a test that ended before it began."""
        start_ns = self.start_ns or self.stopped_ns
        longest_ns = start_ns + _ns(self.run_time_s) if self.run_time_s else self.stopped_ns
        return start_ns, max(start_ns, min(self.stopped_ns, longest_ns))

    def asked_s(self) -> float:
        """How long the measured time was to be."""
        start_ns, end_ns = self.measured_ns()
        return self.run_time_s or (end_ns - start_ns) / 1e9


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _is_called_by_timer() -> bool:
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name not in _TIMERS:
        frame = frame.f_back
    return frame is not None


def sleep_until(time_ns: int) -> None:
    """Until a time of day. gevent's clock stands still while other code runs, so one sleep may end too early."""
    while (left_ns := time_ns - time.time_ns()) > 0:
        gevent.sleep(left_ns / 1e9)
