"""What is published, and what a build would change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from modelwright.build.workspace import open_workspace, plan_workspace
from modelwright.project.project import ProjectConfig

State = Literal["up to date", "to rebuild", "not built", "no builder"]


@dataclass(frozen=True)
class ModelStatus:
    """One model, of the builders or of the repository. The last four fields are those of its newest version."""

    model: str
    versions: tuple[int, ...]
    state: State  # `no builder`: it is in the repository, and no builder makes it
    reason: str = ""  # why it is to be rebuilt
    created: datetime | None = None
    commit: str | None = None  # of the sources, where they are in git
    size_bytes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


def status(project: ProjectConfig) -> list[ModelStatus]:
    """One entry a model, by name. Raises SpecError or ConfigError where a builder is faulty."""
    workspace = open_workspace(project)
    planned = plan_workspace(workspace)
    workspace.fingerprints.save()
    reasons: dict[str, str] = {}
    for entry in planned:
        if entry.status != "cached":
            reasons.setdefault(entry.step.model, entry.reason)
    found = []
    for model in sorted({*workspace.builders, *workspace.repository.models()}):
        latest = workspace.repository.latest(model)
        state: State = "up to date"
        if model not in workspace.builders:
            state = "no builder"
        elif latest is None:
            state = "not built"
        elif model in reasons:
            state = "to rebuild"
        reason = reasons[model] if state == "to rebuild" else ""
        versions = tuple(workspace.repository.versions(model))
        if latest is None:
            found.append(ModelStatus(model, versions, state, reason))
            continue
        manifest = latest[1]
        found.append(
            ModelStatus(
                model,
                versions,
                state,
                reason,
                created=manifest.created,
                commit=manifest.source.commit,
                size_bytes=manifest.size_bytes,
                metrics=manifest.metrics,
            )
        )
    return found
