"""What is published, and what a build would change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from modelwright.build.plan import BuildPlan
from modelwright.build.workspace import open_workspace, plan_workspace
from modelwright.errors import RepositoryError
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository

State = Literal["up to date", "to rebuild", "not built", "on request", "skipped", "no builder", "faulty", "waits"]


@dataclass(frozen=True)
class ModelStatus:
    """One model, of the builders or of the repository. The last four fields are those of its newest version.

    `no builder`: it is in the repository, and no builder makes it. `faulty`: a build would fail it at once. `waits`:
    for a model that it runs and that is faulty. `on request`: not built, and only built when it is named. `skipped`: it
    cannot be made here.
    """

    model: str
    versions: tuple[int, ...]
    state: State
    reason: str = ""  # why it is to be rebuilt, is faulty or waits
    created: datetime | None = None
    commit: str | None = None  # of the sources, where they are in git
    size_bytes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


def status(project: ProjectConfig) -> list[ModelStatus]:
    """One entry a model, by name. What is wrong with one is its state, and hides no other."""
    workspace = open_workspace(project, everything=True)
    planned = plan_workspace(workspace)
    workspace.fingerprints.save()
    reasons: dict[str, str] = {}
    causes = {entry.key: entry.reason for entry in planned if entry.status == "run"}
    for entry in planned:
        if entry.status != "cached":  # a step that another model's makes has that one's reason
            reasons.setdefault(entry.step.model, causes[entry.key] if entry.status == "shared" else entry.reason)
    models = sorted({*workspace.names, *workspace.repository.models()})
    asked = {builder.name for builder in workspace.selected if builder.variant and builder.variant.on_request}
    found = [_status(workspace.repository, model, model in workspace.families, reasons, planned) for model in models]
    return [replace(it, state="on request") if it.state == "not built" and it.model in asked else it for it in found]


def _status(
    repository: Repository, model: str, has_builder: bool, reasons: Mapping[str, str], planned: BuildPlan
) -> ModelStatus:
    versions = tuple(repository.versions(model))
    try:
        latest = repository.latest(model)
    except RepositoryError as error:  # a manifest that cannot be read
        return ModelStatus(model, versions, "faulty", error.message)
    reason = reasons.get(model, "")
    if model in planned.errors:
        found = ModelStatus(model, versions, "faulty", planned.errors[model].message)
    elif model in planned.waiting:
        found = ModelStatus(model, versions, "waits", planned.waiting[model])
    elif model in planned.skipped:
        found = ModelStatus(model, versions, "skipped", planned.skipped[model])
    elif not has_builder:
        found = ModelStatus(model, versions, "no builder")
    elif latest is None:
        found = ModelStatus(model, versions, "not built")
    else:
        found = ModelStatus(model, versions, "to rebuild" if reason else "up to date", reason)
    if latest is None:
        return found
    manifest = latest[1]
    return replace(
        found,
        created=manifest.created,
        commit=manifest.source.commit,
        size_bytes=manifest.size_bytes,
        metrics=manifest.metrics,
    )
