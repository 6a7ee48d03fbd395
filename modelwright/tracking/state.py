"""What the registry is known to have: which versions of which models, and what the alias points at.

`.modelwright/tracking/registered.json` only spares questions: where it is lost, they are asked again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from modelwright.config.edit import served_by
from modelwright.digest import parse_json
from modelwright.errors import ModelwrightError
from modelwright.facts.part import DamagedError, Part, validated
from modelwright.fsops import read_file, read_text, write_cache
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository
from modelwright.triton.layout import CONFIG


class _Known(Part):
    registry: str
    experiment: str
    versions: dict[str, dict[int, int]] = Field(default_factory=dict)  # model → our number → MLflow's
    live: dict[str, int] = Field(default_factory=dict)  # model → our number
    journal: str = ""


@dataclass
class KnownState:
    """A registry's state as far as it is known here."""

    file: Path
    registry: str
    experiment: str
    versions: dict[str, dict[int, int]] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    journal: str = ""  # the repository's journal, when the alias of every model was right

    @classmethod
    def of(cls, project: ProjectConfig) -> KnownState:
        file = project.state / "tracking" / "registered.json"
        registry, experiment = project.registry, experiment_of(project)
        embedded = project.state / "mlflow" / "mlflow.db"
        with suppress(OSError, ValueError, DamagedError):
            known = validated(_Known, parse_json(read_file(file)))
            if (known.registry, known.experiment) == (registry, experiment) and (
                project.tracking.uri or embedded.is_file()
            ):
                versions = {model: dict(numbers) for model, numbers in known.versions.items()}
                return cls(file, registry, experiment, versions, dict(known.live), known.journal)
        return cls(file, registry, experiment)

    def save(self) -> None:
        known = _Known(
            registry=self.registry,
            experiment=self.experiment,
            versions=self.versions,
            live=self.live,
            journal=self.journal,
        )
        write_cache(self.file, json.dumps(known.as_json()))


def experiment_of(project: ProjectConfig) -> str:
    return project.tracking.experiment or project.root.name or "modelwright"


def live_version(repository: Repository, model: str) -> int | None:
    """The version that requests without a version get; None where nothing is served."""
    with suppress(OSError, UnicodeDecodeError, ModelwrightError):
        text = read_text(repository.root / model / CONFIG)
        return max(served_by(text, model, repository.versions(model)), default=None)
    return None


def journal_head(repository: Repository) -> str:
    """Changes with whatever changes what is served."""
    with suppress(ModelwrightError):
        head = repository.ledger().journal
        return head.head if head else ""
    return ""
