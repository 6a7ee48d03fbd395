"""What differs between two versions of a model, whether they are live or retired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from modelwright.errors import RepositoryError
from modelwright.operations.places import Place, VersionPlace, place_of, places, there_are
from modelwright.project.project import ProjectConfig
from modelwright.repository.differences import Differences, VersionSide, compare
from modelwright.repository.draft import tensor_differences
from modelwright.repository.manifest import Manifest, read_ours
from modelwright.repository.repository import Repository
from modelwright.triton.layout import CONFIG, MANIFEST


@dataclass(frozen=True)
class DiffSide:
    """One of the two versions. What follows its size is empty for one that was not made here."""

    version: int
    place: Place
    size_bytes: int
    digest: str = ""
    created: datetime | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class VersionDiff:
    """`config_note` says what was compared where a version has no config.pbtxt of its own."""

    model: str
    before: DiffSide
    after: DiffSide
    signature: tuple[str, ...]  # of inputs and outputs; where it differs, both cannot be served together
    differences: Differences
    config_note: str = ""


def diff(project: ProjectConfig, model: str, before: int | None = None, after: int | None = None) -> VersionDiff:
    """Compare version `before` with version `after`: by default the newest, with the one below it.

    Raises RepositoryError for a model or version that is not there, and for a manifest that cannot be read.
    """
    repository = Repository.of(project)
    found = places(repository, model)
    newer = place_of(repository, model, max(found, default=0) if after is None else after)
    below = [number for number in found if number < newer.version]
    if before is None and not below:
        hint = f"name the two: modelwright diff {model} A B; {there_are(found)}"
        raise RepositoryError(f"{model}: has no version below {newer.version} to compare it with", hint)
    older = place_of(repository, model, below[-1] if before is None else before)
    was, now = (read_ours(item.folder / MANIFEST) for item in (older, newer))
    (one, other), note = _configs(repository.root / model / CONFIG, older, newer)
    return VersionDiff(
        model=model,
        before=_side(older, was),
        after=_side(newer, now),
        signature=_signature(was, now),
        differences=compare(
            VersionSide(f"version {older.version}", older.folder, one),
            VersionSide(f"version {newer.version}", newer.folder, other),
        ),
        config_note=note,
    )


def _configs(current: Path, *versions: VersionPlace) -> tuple[list[Path], str]:
    """The two configs to compare, and what is to be said of them."""
    without = [item for item in versions if item.own_config is None]
    configs = [item.own_config or current for item in versions]
    if not without:
        return configs, ""
    if len(without) == len(versions):
        return configs, "not known: these versions were published without a config.pbtxt of their own"
    missing = f"version {without[0].version} was published without one of its own"
    return configs, f"{missing}: the one that is served now stands for it"


def _signature(was: Manifest | None, now: Manifest | None) -> tuple[str, ...]:
    if was is None or now is None or was.tensors == now.tensors:
        return ()
    return tuple(tensor_differences(was.tensors, now.tensors))


def _side(place: VersionPlace, manifest: Manifest | None) -> DiffSide:
    if manifest is None:
        return DiffSide(place.version, place.place, place.size_bytes)
    return DiffSide(
        place.version,
        place.place,
        manifest.size_bytes,
        manifest.version_digest,
        manifest.created,
        manifest.metrics,
    )
