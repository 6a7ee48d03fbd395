"""Who is told how a build goes: the command line's progress, or a listener of a caller of the Python API."""

from __future__ import annotations

from pathlib import Path

from modelwright.errors import ModelwrightError
from modelwright.kinds.step import Step


class Listener:
    """Ignores every event. Subclasses override what they show."""

    def waiting(self, holder: str) -> None:
        """Another process builds; `holder` says which."""

    def locking(self, text: str) -> None:
        """A requirements.lock is made before the build can plan: `text` says which one, and that it is there."""

    def recording(self, models: int) -> None:
        """All is published; the builds of so many models are brought to MLflow, which may take a while."""

    def planned(self, steps: int, cached: int) -> None:
        """The build has `steps` steps, of which `cached` are up to date before anything runs."""

    def started(self, step: Step, reason: str) -> None:
        """A step was handed to a worker; `reason` says why it must run."""

    def progress(self, step: Step, text: str) -> None:
        """A step that runs says how far it is; may come many times a second."""

    def finished(self, step: Step, duration_s: float) -> None:
        """A step's result is in the store."""

    def failed(self, step: Step, error: ModelwrightError, log: Path) -> None:
        """A step failed; `log` holds what it printed."""
