"""Whole processes against the wall clock: what a person waits for."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Measured = TypeVar("Measured")
PYTHON = sys.executable
MODELWRIGHT = str(Path(sys.executable).with_name("modelwright"))


def run(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    accepted: Sequence[int] = (0,),
) -> float:
    """Run a command; seconds. Raises RuntimeError with its output when it fails: a failure is no measurement."""
    variables = {**os.environ, **(environment or {})}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's shell has it, and each process would compile everything
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    spent_s = time.perf_counter() - started
    if done.returncode not in accepted:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return spent_s


@dataclass(frozen=True)
class Cost:
    """What a process took. CPU time, the user's and the system's, is less disturbed by others than the wall clock."""

    wall_s: float
    cpu_s: float


def cost(command: Sequence[str], folder: Path, accepted: Sequence[int] = (0,)) -> Cost:
    """Run a command. Raises RuntimeError for an exit code that is not accepted."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall_s = run(command, folder, accepted=accepted)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def build(project: Path, *options: str) -> float:
    """`modelwright build` as a person runs it; seconds."""
    return run([MODELWRIGHT, "build", *options], project)


def interleaved(candidates: Mapping[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """Take turns, in alternating order, so that what else the machine does falls on all alike."""
    taken: dict[str, list[Measured]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name in list(candidates)[:: 1 if number % 2 == 0 else -1]:
            taken[name].append(candidates[name]())
    return taken


@dataclass(frozen=True)
class Run:
    """A time, and how many cores other programs kept busy meanwhile."""

    others_cores: float
    time_s: float


def undisturbed(measure: Callable[[], float], attempts: int, most_cores: float = 0.1) -> Run:
    """Measure again, up to `attempts` times, while others use more than `most_cores`; the least disturbed run."""
    runs: list[Run] = []
    while len(runs) < attempts and not any(run.others_cores <= most_cores for run in runs):
        busy_s, own_s = _busy_s(), _own_s()
        time_s = measure()
        others_s = (_busy_s() - busy_s) - (_own_s() - own_s)
        runs.append(Run(max(others_s / time_s, 0.0), time_s))
    return min(runs, key=lambda run: run.others_cores)


def _busy_s() -> float:
    """CPU seconds of the whole machine since it started, without idle and iowait: proc(5), /proc/stat."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """CPU seconds of this process and of all children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def best_and_median(times_s: Sequence[float]) -> tuple[float, float]:
    return min(times_s), statistics.median(times_s)


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def milliseconds(value_s: float) -> str:
    return f"{value_s * 1000:.2f} ms"
