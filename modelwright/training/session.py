"""Where a training is: the step that it belongs to, its checkpoints, and what the step keeps of it.

The executor opens a session around each step. Outside of a build a training has a session of its own, which keeps
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.errors import StepError
from modelwright.facts.training import TrainingRecord

Say = Callable[[str], None]


@dataclass
class TrainingSession:
    """The trainings of one step, in the order in which its code asks for them."""

    where: str = ""  # how messages call the builder: builders/x/model.yaml
    folder: Path | None = None  # for checkpoints; None: nothing is kept
    say: Say = logging.getLogger("modelwright.training").info
    record: TrainingRecord | None = None  # of the last training, with the folds of a cross-validation
    _begun: int = field(default=0)

    def next_checkpoint(self) -> Path | None:
        """The file of the next training of this step."""
        self._begun += 1
        return self.folder / f"{self._begun:03}.ckpt" if self.folder else None

    def keep(self, record: TrainingRecord) -> None:
        """Keep a training; the folds of an earlier cross-validation stay beside it."""
        folds = self.record.folds if self.record else {}
        self.record = record.model_copy(update={"folds": {**folds, **record.folds}})

    def error(self, problem: str, hint: str = "") -> StepError:
        return StepError(f"{self.where}: {problem}" if self.where else problem, hint)


_current: TrainingSession | None = None


def current() -> TrainingSession:
    """The session of the step that runs; a new one outside of a step."""
    return _current or TrainingSession()


@contextmanager
def session(where: str, folder: Path | None, say: Say) -> Iterator[TrainingSession]:
    """The session of a step, for the block."""
    global _current
    before, _current = _current, TrainingSession(where, folder, say)
    try:
        yield _current
    finally:
        _current = before
