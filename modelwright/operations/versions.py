"""The versions of a model: where each is, whether it is served and why, what it holds and how it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from modelwright.errors import RepositoryError
from modelwright.loadtest.gate.verdicts import PastVerdict, past_verdicts
from modelwright.operations.places import Place, VersionPlace, places, served_versions
from modelwright.project.project import ProjectConfig
from modelwright.repository import pins
from modelwright.repository.manifest import read_ours
from modelwright.repository.repository import Repository
from modelwright.triton.layout import MANIFEST


@dataclass(frozen=True)
class VersionStatus:
    """One version. `default`: requests that name no version get it. `needed_by`: the pipelines that are bound to it.
    `runs`: of a pipeline, the versions of other models that it was verified with, as far as they are still there.
    `problem`: why it cannot be read.

    A version that was not made here has neither digest, age nor metrics.
    """

    version: int
    place: Place
    served: bool = False
    default: bool = False
    promoted: bool = False
    withdrawn: bool = False
    needed_by: tuple[str, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""
    created: datetime | None = None
    size_bytes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    gate: PastVerdict | None = None  # the latest verdict of `load ab` on it
    problem: str = ""


@dataclass(frozen=True)
class ModelVersions:
    """A model's versions, newest first. `problem`: why it is not known which are served."""

    model: str
    promoted: int | None
    versions: tuple[VersionStatus, ...]
    problem: str = ""


def versions(project: ProjectConfig, model: str) -> ModelVersions:
    """Every version of a model, live and retired. Raises RepositoryError for a model that is not there.

    What is wrong with one version is its `problem`, and hides no other.
    """
    repository = Repository.of(project)
    found = places(repository, model)
    state = repository.ledger().state(model)
    served, problem = served_versions(repository, model)
    needed = pins.needed(repository).get(model, {})
    verdicts = past_verdicts(project.state / "load", model)
    entries = [
        replace(
            _told(place),
            served=number in served,
            default=number == max(served, default=None),
            promoted=number == state.promoted,
            withdrawn=number in state.withdrawn,
            needed_by=needed.get(number, ()),
            runs=_runs(repository, model, number),
        )
        for number, place in found.items()
    ]
    entries = [replace(entry, gate=_gate(entry, verdicts)) for entry in entries]
    return ModelVersions(model, state.promoted, tuple(reversed(entries)), problem)


def _runs(repository: Repository, model: str, version: int) -> dict[str, int]:
    try:
        return pins.numbers(repository, model, version)
    except RepositoryError:  # it cannot be read, or one of them is gone
        return {}


def _told(place: VersionPlace) -> VersionStatus:
    status = VersionStatus(place.version, place.place)
    try:
        manifest = read_ours(place.folder / MANIFEST)
    except RepositoryError as error:
        return replace(status, problem=error.message, size_bytes=place.size_bytes)
    if manifest is None:
        return replace(status, size_bytes=place.size_bytes)
    return replace(
        status,
        digest=manifest.version_digest,
        created=manifest.created,
        size_bytes=manifest.size_bytes,
        metrics=manifest.metrics,
    )


def _gate(version: VersionStatus, verdicts: Mapping[int, PastVerdict]) -> PastVerdict | None:
    """The gate's verdict on it, and not on one of the same number in a repository that was here before."""
    found = verdicts.get(version.version)
    return found if found and version.created and found.created >= version.created else None
