"""Writes a file that stands beside a model.yaml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from modelwright.errors import StepError
from modelwright.fsops import disk_error
from modelwright.project.project import ProjectConfig

Say: TypeAlias = Callable[[str], Any]


def write_lock(project: ProjectConfig, file: Path, text: str) -> None:
    """Write a lock, or leave what is there as it is. Raises StepError and StoreError where that fails."""
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        if known := disk_error(error, file):
            raise known from None
        hint = "move away what is there, and run the same command again"
        raise StepError(f"{project.shown(file)}: cannot be written: {error.strerror}", hint) from None
