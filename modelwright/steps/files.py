"""The files of a source, as a step finds them: `kinds.origin` puts them into its key."""

from __future__ import annotations

from pathlib import Path

from modelwright.kinds.origin import role_of
from modelwright.project.files import local_file, local_folder
from modelwright.project.uris import file_name, is_uri
from modelwright.steps.context import StepContext


def source_path(context: StepContext, where: str, path: str, *, folder: bool = False) -> Path:
    """The file that a source names at `path`, or with `folder` the folder. `where` is the field of model.yaml."""
    if is_uri(path):
        fetched = context.inputs[role_of(where)]
        return fetched if folder else fetched / file_name(path)
    return (local_folder if folder else local_file)(context.builder, where, path)
