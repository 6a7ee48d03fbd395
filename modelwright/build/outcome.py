"""What became of each model in a build."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modelwright.errors import ModelwrightError
from modelwright.facts.compared_with import ComparedWith

Status = Literal["new", "config", "unchanged", "skipped", "on request", "failed", "held"]


@dataclass(frozen=True)
class Outcome:
    """What became of one model.

    `new`: a new version. `config`: the same version with another config.pbtxt or files beside it. `held`: built, but
    not published, since a model that belongs with it failed. `skipped`: it cannot be made here; what was published
    before stays. `on request`: it is built when it is named, or with `everything`.
    """

    model: str
    status: Status
    version: int | None = None
    size_bytes: int = 0
    max_abs_error: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    build_s: float = 0.0  # of the steps that ran; of those that made it, if none did
    ran: bool = False  # whether any step had to
    compared_with: ComparedWith | None = None  # the version
    published: tuple[int, ...] = ()  # the versions that came out under numbers of their own
    warnings: tuple[str, ...] = ()  # of the linter, for what was published
    reason: str = ""  # why it is held or skipped
    note: str = ""  # why what was built is not what is served
    error: ModelwrightError | None = None
    log: Path | None = None
