"""What happened to a repository: the events of its journal, and whether they are what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelwright.project.project import ProjectConfig
from modelwright.repository.journal import Break, Event
from modelwright.repository.repository import Repository
from modelwright.repository.versions import check_known


@dataclass(frozen=True)
class History:
    """Events, oldest first. `breaks`: where the journal is not what was written; empty where all of it holds.

    `lines` counts all lines of the journal, those of other models, too.
    """

    events: tuple[Event, ...]
    breaks: tuple[Break, ...]
    lines: int
    file: Path


def history(project: ProjectConfig, model: str = "") -> History:
    """The events that changed one model, or all. The whole journal is checked in any case.

    Raises RepositoryError for a model that was never there, and for a ledger that cannot be read.
    """
    repository = Repository.of(project)
    events, breaks = repository.journal.read(repository.ledger().journal)
    mine = [event for event in events if not model or _concerns(event, model)]
    if model and not mine:
        check_known(repository, model)
    return History(tuple(mine), tuple(breaks), len(events), repository.journal.file)


def _concerns(event: Event, model: str) -> bool:
    """Whether an event changed a model: as the one that was named, or along with it."""
    serves = event.details.get("serves")
    return event.model == model or (isinstance(serves, dict) and model in serves)
