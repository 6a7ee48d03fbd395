"""One fault stays one fault: what goes wrong with a model is that model's error, and the others go on.

    with faults.of("digits", "plan"):
        steps = model_steps(...)
    if "digits" in faults.errors: ...

An exception that no code of ours expects is a bug: its traceback goes to a log, and the message asks for a report. A
full disk and Ctrl-C concern every model, so they pass through.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.errors import REPORTS, BugError, DiskFullError, ModelwrightError, one_line
from modelwright.fsops import disk_error, disk_errors
from modelwright.project.project import ProjectConfig

_LONGEST_PROBLEM = 300  # characters, of an exception's text


@dataclass
class Faults:
    """What went wrong, by model. The first fault of a model counts: what follows from it says less."""

    project: ProjectConfig
    errors: dict[str, ModelwrightError] = field(default_factory=dict)
    logs: dict[str, Path] = field(default_factory=dict)

    @contextmanager
    def of(self, model: str, what: str) -> Iterator[None]:
        """Keep what the block raises as the model's error. `what` is done in it: a step, or `plan`, `publish`."""
        try:
            yield
        except Exception as error:
            self.add(model, what, error)

    def add(self, model: str, what: str, error: Exception) -> None:
        """Note an exception. Raises DiskFullError instead: then no other model can go on, either."""
        known = error if isinstance(error, ModelwrightError) else None
        if isinstance(error, OSError):
            known = disk_error(error, self.project.root)
        if isinstance(known, DiskFullError):
            raise known from None
        if known:
            self.errors.setdefault(model, known)
        else:
            self.add_bug(model, what, one_line_of(error), traceback_of(error))

    def add_bug(self, model: str, what: str, problem: str, trace: str, printed: str = "") -> None:
        """Note a fault of Modelwright. `trace` is its traceback, `printed` what the step wrote before."""
        log = self.write_log(model, what, printed, trace)
        places = f"{self.project.shown(log)} and the builder's folder, as far as it may be shown"
        hint = f"this is a bug in Modelwright: please report it at {REPORTS}, with {places}"
        self.errors.setdefault(model, BugError(f"{model}: {what}: {problem}", hint))

    def log(self, model: str, what: str) -> Path:
        """Where the log of a model's step lies when the step failed."""
        return self.project.logs / model / f"{what}.log"

    def write_log(self, model: str, what: str, printed: str, trace: str) -> Path:
        log = self.log(model, what)
        with disk_errors(log.parent):
            log.parent.mkdir(parents=True, exist_ok=True)
            text = f"{printed}\n{trace}" if trace else printed
            log.write_text(text, encoding="utf-8", errors="backslashreplace")
        self.logs.setdefault(model, log)
        return log


def one_line_of(error: BaseException) -> str:
    """`ValueError: what it says`, in one line and not too long."""
    text = f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")
    return text if len(text) <= _LONGEST_PROBLEM else f"{text[:_LONGEST_PROBLEM]}…"


def traceback_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
