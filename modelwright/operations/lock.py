"""`lock` and `update`: the requirements of Python models, and the URIs of sources, resolved into locks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelwright.build.build import LOCK
from modelwright.build.locks import LockedModel, lock_model, wanted_lock
from modelwright.build.source_locks import LockedSources, lock_sources
from modelwright.errors import SpecError
from modelwright.fsops import locked
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builders
from modelwright.project.spec import Builder
from modelwright.project.uris import uris_of
from modelwright.suggest import did_you_mean
from modelwright.variants.registry import LOOKUPS

Say = Callable[[str], Any]


def lock(
    project: ProjectConfig, names: Sequence[str], say: Say, *, upgrade: bool = False
) -> list[LockedModel | LockedSources]:
    """Write the locks of the named models, or of all that have requirements or URIs. One result a lock.

    A lock that fits stays as it is; in a requirements.lock that does not, versions that still fit stay. `upgrade` takes
    the newest ones instead. Raises SpecError for an unknown name, a model that has nothing to lock, and requirements
    that cannot be met; StepError without uv or a package index, and for a URI that cannot be resolved; LockedError
    while a build runs.
    """
    found: list[LockedModel | LockedSources] = []
    with locked(project.state / LOCK, "modelwright lock", wait=False):
        for builder in _chosen(project, names, _has_locks(project), "source.requirements and no URI"):
            if uris_of(builder.spec.source):
                found.append(lock_sources(project, builder, say))
            if wanted_lock(project, builder):
                found.append(lock_model(project, builder, say, upgrade=upgrade))
    return found


def update(project: ProjectConfig, names: Sequence[str], say: Say, *, dry_run: bool = False) -> list[LockedSources]:
    """Resolve the URIs of the named models again, or of all that have any, and write what moved into source.lock.

    With `dry_run` nothing is written. Raises SpecError for an unknown name and a model without URIs, ModelwrightError
    for a URI that cannot be resolved, LockedError while a build runs.
    """
    with locked(project.state / LOCK, "modelwright update", wait=False):
        chosen = _chosen(project, names, lambda builder: bool(uris_of(builder.spec.source)), "URI in its source")
        return [lock_sources(project, builder, say, update=True, write=not dry_run) for builder in chosen]


def _has_locks(project: ProjectConfig) -> Callable[[Builder], bool]:
    return lambda builder: bool(uris_of(builder.spec.source)) or wanted_lock(project, builder) is not None


def _chosen(project: ProjectConfig, names: Sequence[str], has: Callable[[Builder], bool], what: str) -> list[Builder]:
    """The named builders, or all that have something to lock. Variants have the file of the plain model."""
    read = read_builders(project, LOOKUPS)
    for name in names:
        if name in read.faulty:
            raise read.faulty[name]
        if name not in read.valid:
            raise SpecError(f"no builder makes a model named '{name}'", did_you_mean(name, read.valid))
        if not has(read.valid[name]):
            raise SpecError(f"{read.valid[name].file}: it has no {what}", "there is nothing to lock")
    return [read.valid[name] for name in names] or [
        item for item in read.valid.values() if has(item) and item.variant is None
    ]
