"""Writes the source.lock of a model with URIs: for `lock` and `update`, and for a build where one is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwright.build.lock_files import Say, write_lock
from modelwright.errors import SpecError, located
from modelwright.kinds.registry import kind_of
from modelwright.project.project import ProjectConfig
from modelwright.project.source_lock import FILE, SourceLock, read_source_locks, source_lock_text
from modelwright.project.spec import Builder
from modelwright.project.uris import uris_of
from modelwright.steps.sources.resolve import Resolver, Selection
from modelwright.text import counted, size

_MOST_NAMES = 5


@dataclass(frozen=True)
class LockedSources:
    """What became of one model's source.lock."""

    model: str
    file: Path
    locks: tuple[SourceLock, ...]  # in the order of model.yaml's fields
    changes: tuple[str, ...]  # "models:/digits@champion: version 3 → 4", "s3://…: m.onnx changed"
    written: bool  # whether the file is another one now


def lock_sources(
    project: ProjectConfig, builder: Builder, say: Say, *, update: bool = False, write: bool = True
) -> LockedSources:
    """Resolve the URIs of one model, and write its lock if it is not what is there.

    What the lock has stays, unless with `update`, which also replaces a damaged one. Without `write` nothing is
    written. Raises SpecError for a damaged lock, ModelwrightError for a URI that cannot be resolved.
    """
    file, shown = builder.folder / FILE, builder.file.rpartition("/")[0]
    uris = uris_of(builder.spec.source)
    before = _existing(builder.folder, shown, damaged_is_none=update)
    kept = {} if update else {uri: before[uri] for uri in uris.values() if uri in before}
    found: dict[str, SourceLock] = dict(kept)
    for field, uri in uris.items():
        if uri not in found:
            with located(f"{builder.file}: {field}"):
                found[uri] = _resolver(project, say, f"{shown}/{FILE}").resolve(uri, _selection(builder))
    changed = any(lock != before.get(uri) for uri, lock in found.items()) or (update and found.keys() != before.keys())
    if changed and write:
        write_lock(project, file, source_lock_text(found.values()))
    changes = [text for uri in found for text in _changes(before.get(uri), found[uri])]
    return LockedSources(builder.name, file, tuple(found.values()), tuple(changes), changed and write)


def _existing(folder: Path, shown: str, *, damaged_is_none: bool) -> Mapping[str, SourceLock]:
    try:
        return read_source_locks(folder, shown)
    except SpecError:
        if damaged_is_none:
            return {}
        raise


def _resolver(project: ProjectConfig, say: Say, shown: str) -> Resolver:
    return Resolver(
        project.state / "cache", project.fetch_limits, lambda text: say(f"{shown}: {text}"), project.registry
    )


def _selection(builder: Builder) -> Selection:
    kind = kind_of(builder)
    return Selection(kind.files_beside_source, kind.left_out_of_source)


def _changes(before: SourceLock | None, after: SourceLock) -> Iterator[str]:
    if before is None:
        yield f"{after.uri}: {counted(len(after.files), 'file')}, {size(after.size_bytes)}"
        return
    if before.resolved != after.resolved:
        old, new = before.details.get("version"), after.details.get("version")
        moved = f"version {old} → {new}" if old and new and old != new else f"{before.resolved} → {after.resolved}"
        yield f"{after.uri}: {moved}"
    names = [f"{name} changed" for name, file in after.files.items() if before.files.get(name, file) != file]
    names += [f"{name} added" for name in after.files if name not in before.files]
    names += [f"{name} removed" for name in before.files if name not in after.files]
    if names:
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        yield f"{after.uri}: {', '.join(sorted(names)[:_MOST_NAMES])}{more}"
