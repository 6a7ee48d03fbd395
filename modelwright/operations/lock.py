"""Resolve the requirements of Python models into their requirements.lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from modelwright.build.build import LOCK
from modelwright.build.locks import LockedModel, lock_model, wanted_lock
from modelwright.errors import SpecError
from modelwright.fsops import locked
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builders
from modelwright.project.spec import Builder
from modelwright.suggest import did_you_mean
from modelwright.variants.registry import LOOKUPS


def lock(
    project: ProjectConfig, names: Sequence[str], say: Callable[[str], Any], *, upgrade: bool = False
) -> list[LockedModel]:
    """Write the locks of the named models, or of all that have requirements. One result a model.

    A lock that fits stays as it is; in one that does not, versions that still fit stay. `upgrade` takes the newest ones
    instead. Raises SpecError for an unknown name, a model without requirements, and requirements that cannot be met;
    StepError without uv or a package index; LockedError while a build runs.
    """
    with locked(project.state / LOCK, "modelwright lock", wait=False):
        return [lock_model(project, builder, say, upgrade=upgrade) for builder in _chosen(project, names)]


def _chosen(project: ProjectConfig, names: Sequence[str]) -> list[Builder]:
    read = read_builders(project, LOOKUPS)
    for name in names:
        if name in read.faulty:
            raise read.faulty[name]
        if name not in read.valid:
            raise SpecError(f"no builder makes a model named '{name}'", did_you_mean(name, read.valid))
        if wanted_lock(project, read.valid[name]) is None:
            raise SpecError(f"{read.valid[name].file}: it has no source.requirements", "there is nothing to lock")
    return [read.valid[name] for name in names] or [item for item in read.valid.values() if wanted_lock(project, item)]
