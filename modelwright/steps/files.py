"""The files of a source, as a step finds them: `kinds.origin` puts them into its key."""

from __future__ import annotations

from pathlib import Path

from modelwright.project.files import local_file, local_folder
from modelwright.steps.context import StepContext


def source_path(context: StepContext, where: str, path: str, *, folder: bool = False) -> Path:
    """The file that a source names at `path`, or with `folder` the folder. `where` is the field of model.yaml."""
    return (local_folder if folder else local_file)(context.builder, where, path)
