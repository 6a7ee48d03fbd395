"""Where a source's files lie: in the builder's folder, or at a URI, which a step fetches.

    files = source_files(recipe, "source.path", source.path)
    recipe.step(…, data=files.data, needs=files.needs)      # files.steps come before it

The step finds them with `steps.files.source_path`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelwright.digest import list_tree, tree_digest
from modelwright.errors import SpecError
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction, StepId
from modelwright.project.files import local_file, local_folder
from modelwright.project.source_lock import SourceLock, read_source_lock
from modelwright.project.spec import Builder
from modelwright.project.uris import file_name, is_uri

FETCH = StepFunction("fetch", "modelwright.steps.fetch:run")


@dataclass(frozen=True)
class SourceFiles:
    """What a step that reads them has in its key, and the steps that come before it."""

    data: Mapping[str, str] = field(default_factory=dict)  # path in the builder's folder → SHA-256
    needs: Mapping[str, StepId] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


def source_files(recipe: Recipe, where: str, path: str, *, folder: bool = False) -> SourceFiles:
    """The files of a source at `path`: a file, or with `folder` everything below it.

    `where` is the field of model.yaml, for messages. Raises SpecError for what is not there, SourceLockNeededError for
    a URI that source.lock does not have.
    """
    builder = recipe.builder
    if is_uri(path):
        return _fetched(recipe, where, source_lock(builder, where, path, folder=folder))
    if not folder:
        return SourceFiles({path: recipe.fingerprints.file(local_file(builder, where, path))})
    root = local_folder(builder, where, path)
    return SourceFiles({f"{path}/{name}": recipe.fingerprints.file(file) for name, file in list_tree(root).items()})


def is_folder(builder: Builder, path: str) -> bool:
    """Whether there is a folder at the `path` of a source, here or at a URI. Raises like `source_files`."""
    if is_uri(path):
        return _lock(builder, path).is_folder
    return (builder.folder / path).is_dir()


def source_lock(builder: Builder, where: str, uri: str, *, folder: bool) -> SourceLock:
    """What source.lock has of a URI. Raises SpecError for a folder where a file is needed, and the other way round."""
    lock = _lock(builder, uri)
    if lock.is_folder != folder:
        is_, wanted = ("a folder", "a file") if lock.is_folder else ("a file", "a folder")
        raise SpecError(f"{builder.file}: {where}: {uri} is {is_}, and {wanted} is needed", f"name {wanted}")
    if not folder and file_name(uri) not in lock.files:
        hint = f"modelwright update {builder.folder.name} writes it again"
        raise SpecError(f"{builder.file}: {where}: source.lock names other files than {file_name(uri)}", hint)
    return lock


def role_of(where: str) -> str:
    """The need of a step that reads what was fetched for a field of model.yaml: `fetched source.path`."""
    return f"fetched {where}"


def _lock(builder: Builder, uri: str) -> SourceLock:
    return read_source_lock(builder.folder, builder.file.rpartition("/")[0], uri)


def _fetched(recipe: Recipe, where: str, lock: SourceLock) -> SourceFiles:
    field = where.rpartition(".")[2]
    step = recipe.step(
        "fetch" if field == "path" else f"fetch_{field}",
        FETCH,
        config={"field": where, "files": tree_digest(lock.digests)},
        data=lock.digests,
    )
    return SourceFiles(needs={role_of(where): step.id}, steps=(step,))
