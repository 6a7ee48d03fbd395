"""Where steps run. The scheduler knows this interface only: processes of this machine today, a cluster tomorrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from modelwright.errors import ModelwrightError
from modelwright.facts.part import Facts
from modelwright.progress import Tell
from modelwright.steps.context import StepContext


@dataclass(frozen=True)
class Job:
    """One step to run: what it is given, the folder it writes to (with `files/` in it), and the threads it may use."""

    context: StepContext
    staged: Path
    threads: int = 1

    @property
    def model(self) -> str:
        return self.context.builder.name


@dataclass(frozen=True)
class Done:
    facts: Facts
    duration_s: float


@dataclass(frozen=True)
class Failed:
    error: ModelwrightError | None  # None: a bug, and `trace` says where
    trace: str
    problem: str = ""  # of a bug, in one line


@dataclass(frozen=True)
class StepProgress:
    """What a worker process sends while it works: see `progress`."""

    text: str


class Executor(Protocol):
    """Runs jobs. The scheduler never submits two jobs of one builder at a time."""

    def capacity(self) -> int:
        """Threads that are free now. A job that wants more than there are in all is submitted while nothing runs."""

    def submit(self, job: Job, tell: Tell) -> None:
        """Start a job. Returns at once. What its step says of itself while it runs goes to `tell`, in this process."""

    def results(self) -> Sequence[tuple[Job, Done | Failed]]:
        """The jobs that ended since the last call; waits a moment when there are none yet."""

    def retire(self, model: str) -> None:
        """No more jobs of this builder come: what was kept for it may go."""

    def close(self) -> None:
        """Stop what still runs and release everything."""
