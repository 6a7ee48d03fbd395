"""Where a source's files lie: in the builder's folder, or at a URI, which a step fetches.

    files = source_files(recipe, "source.path", source.path)
    recipe.step(…, data=files.data, needs=files.needs)      # files.steps come before it

The step finds them with `steps.files.source_path`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelwright.digest import list_tree
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepId
from modelwright.project.files import local_file, local_folder

FILES = "files"  # role of the step that fetched them


@dataclass(frozen=True)
class SourceFiles:
    """What a step that reads them has in its key, and the steps that come before it."""

    data: Mapping[str, str] = field(default_factory=dict)  # path in the builder's folder → SHA-256
    needs: Mapping[str, StepId] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


def source_files(recipe: Recipe, where: str, path: str, *, folder: bool = False) -> SourceFiles:
    """The files of a source at `path`: a file, or with `folder` everything below it.

    `where` is the field of model.yaml, for messages. Raises SpecError for what is not there.
    """
    builder = recipe.builder
    if not folder:
        return SourceFiles({path: recipe.fingerprints.file(local_file(builder, where, path))})
    root = local_folder(builder, where, path)
    return SourceFiles({f"{path}/{name}": recipe.fingerprints.file(file) for name, file in list_tree(root).items()})
