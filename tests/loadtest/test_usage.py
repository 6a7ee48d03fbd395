"""usage.py: the CPU time and the memory of a process and of those below it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from modelwright.loadtest.measure.usage import Usage, cpu_s, usage

# A parent that waits, and its child, which uses 0.3 s of CPU time in a thread that has ended when it says so.
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
"""
CHILD = """
import threading, time

def burn():
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass

input()
thread = threading.Thread(target=burn)
thread.start()
thread.join()
print("done", flush=True)
input()
"""


def test_cpu_time_is_of_the_whole_tree_with_threads_that_have_ended() -> None:
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        while len((before := usage(parent.pid) or Usage(0, {}, 0)).cpu_ns) < 2:
            time.sleep(0.01)
        parent.stdin.write("\n")
        parent.stdin.flush()
        parent.stdout.readline()
        after = usage(parent.pid)
        parent.stdin.close()
    assert after is not None
    spent = cpu_s(before, after)
    assert spent is not None
    assert 0.29 < spent < 1  # the start of the child's interpreter may be in it
    assert after.memory_bytes > 10**6
    assert any(now % 10_000_000 for now in after.cpu_ns.values())  # finer than a clock tick
    assert usage(parent.pid) is None


@pytest.mark.parametrize(
    ("before", "after", "spent"),
    [
        pytest.param({1: 10**9}, {1: 3 * 10**9}, 2, id="one process"),
        pytest.param({1: 10**9}, {1: 10**9, 2: 5 * 10**8}, 0.5, id="one that has started meanwhile"),
        pytest.param({1: 10**9, 2: 10**9}, {1: 3 * 10**9}, None, id="one that has ended meanwhile"),
    ],
)
def test_what_was_spent_in_between(before: dict[int, int], after: dict[int, int], spent: float | None) -> None:
    assert cpu_s(Usage(0, before, 1), Usage(1, after, 1)) == spent


def test_without_both_ends_nothing_is_known() -> None:
    assert cpu_s(None, Usage(1, {1: 1}, 1)) is None
    assert cpu_s(Usage(1, {1: 1}, 1), None) is None
