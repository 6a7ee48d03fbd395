"""What differs between the two versions of a gate, one line each, to find the cause of a change."""

from __future__ import annotations

from pathlib import Path

from modelwright.repository.differences import VersionSide, compare
from modelwright.triton.layout import CONFIG

_MAX_LINES = 40


def differences(baseline: Path, baseline_version: int, candidate: Path, candidate_version: int) -> list[str]:
    """`baseline` and `candidate` are the models' folders: with one repository the same, and so is the config then.

    Raises RepositoryError for a manifest that cannot be read, or a version that is not there.
    """
    lines = compare(
        VersionSide("the baseline", baseline / str(baseline_version), baseline / CONFIG),
        VersionSide("the candidate", candidate / str(candidate_version), candidate / CONFIG),
    ).lines()
    more = len(lines) - _MAX_LINES
    return lines if more <= 0 else [*lines[:_MAX_LINES], f"… and {more:,} more"]
