"""The state of a training between two epochs, as a file: a build that was killed goes on from there.

Complete or not there: written beside its place and renamed. It is a file of weights and plain values, without code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.fsops import disk_errors

_SHARE = 0.05  # of the time of a training that its checkpoints may take, after the first


class CheckpointError(ValueError):
    """A checkpoint that is of another training."""


@dataclass
class Checkpoint:
    """The file of one training; None for a training that keeps none."""

    file: Path | None
    _written_at: float = 0.0
    _cost_s: float = 0.0

    def read(self, training: Mapping[str, Any]) -> dict[str, Any] | None:
        """The last state, or None for none that can be read. Raises CheckpointError for one of another training.

        `training` is what it must be of: parameters, and the names and shapes of the weights.
        """
        import torch

        if self.file is None or not self.file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True)
            found = dict(state["training"])
        except Exception:  # cut short by a power failure, say: whatever torch raises, the training starts anew
            return None
        for name, value in training.items():
            if found.get(name) != value:
                raise CheckpointError(
                    f"{self.file} is of another training: {_difference(name, found.get(name), value)}"
                )
        return state

    def is_due(self) -> bool:
        """Whether writing now keeps the cost of checkpoints to a small share of the time."""
        return self.file is not None and time.monotonic() - self._written_at >= self._cost_s / _SHARE

    def write(self, state: Mapping[str, Any]) -> None:
        """Raises StoreError for a full disk."""
        import torch

        if self.file is None:
            return
        started = time.monotonic()
        part = self.file.with_suffix(f".{os.getpid()}")
        with disk_errors(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:  # torch's own files turn a full disk into a RuntimeError
                    torch.save(dict(state), file)
                part.replace(self.file)
            except OSError:
                part.unlink(missing_ok=True)
                raise
        self._written_at = time.monotonic()
        self._cost_s = self._written_at - started


def _difference(name: str, found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*expected, *found]:
            if found.get(key) != expected.get(key):
                return f"{name} {key}: {found.get(key, 'none')} there, {expected.get(key, 'none')} here"
    return f"{name}: {found} there, {expected} here"
