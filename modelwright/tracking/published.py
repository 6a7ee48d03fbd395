"""Versions that were published before they could be recorded: put into the outbox from their manifests."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from modelwright.errors import RepositoryError
from modelwright.facts.training import TrainingRecord
from modelwright.project.project import ProjectConfig
from modelwright.repository.manifest import Manifest
from modelwright.repository.repository import Repository
from modelwright.tracking.describe import BuiltModel, RanStep, epochs, files, metrics, params, tags
from modelwright.tracking.mlflow_model import version_files
from modelwright.tracking.outbox import Outbox, new_uid
from modelwright.tracking.record import BuildRecord


def put_published(
    project: ProjectConfig, repository: Repository, outbox: Outbox, model: str, known: Collection[int]
) -> None:
    """A record for each version of a model that neither the registry nor the outbox has, lowest first."""
    waiting = {record.version for record in outbox.waiting() if record.model == model and not record.failed}
    live = set(repository.versions(model))
    for version in sorted({*live, *repository.retired(model)} - waiting - set(known)):
        with suppress(RepositoryError):  # a damaged one is for fsck
            manifest = (
                repository.manifest(model, version) if version in live else repository.retired_manifest(model, version)
            )
            if manifest is not None:
                folder = repository.folder if version in live else repository.retired_folder
                _put(project, outbox, manifest, folder(model, version))


def _put(project: ProjectConfig, outbox: Outbox, manifest: Manifest, folder: Path) -> None:
    steps = [RanStep(step.step, step.key, step.key_content) for step in manifest.lineage]
    built = BuiltModel(
        manifest.model,
        "published",
        steps,
        manifest=manifest,
        training=_training(project, steps),
        seconds=sum(step.seconds for step in manifest.lineage),
    )
    ended_ms = int(manifest.created.timestamp() * 1000)
    put(outbox, built, folder, ended_ms, version=manifest.version, models=project.tracking.models)


def put(
    outbox: Outbox, built: BuiltModel, folder: Path | None, ended_ms: int, *, version: int | None, models: bool
) -> None:
    """A record of what is known of a build. `folder` has the files of its version, which go along with `models`."""
    record = BuildRecord(
        uid=_uid(built, ended_ms),
        model=built.model,
        status=built.status,
        started_ms=ended_ms - int(built.seconds * 1000),
        ended_ms=ended_ms,
        version=version,
        version_digest=built.manifest.version_digest if built.manifest else "",
        description=built.manifest.description if built.manifest else "",
        params=params(built),
        metrics=metrics(built),
        epochs=tuple(epochs(built.training)),
        tags=tags(built),
    )
    taken = version_files(built.manifest, folder) if models and folder and built.manifest else {}
    outbox.put(record, files(built, folder), taken)


def _uid(built: BuiltModel, ended_ms: int) -> str:
    """Records sort by time, so that versions are registered in their order."""
    return f"{ended_ms:015d}-{built.manifest.version if built.manifest else 0:09d}-{new_uid()}"


def _training(project: ProjectConfig, steps: list[RanStep]) -> TrainingRecord | None:
    """What a training kept, where the store still has it."""
    found = (read_training(project.store / step.key[:2] / step.key / "files") for step in steps)
    return next((record for record in found if record), None)


def read_training(folder: Path) -> TrainingRecord | None:
    """The record of a training in an artifact's files; None where there is none that can be read."""
    with suppress(OSError, ValueError):
        return TrainingRecord.read(folder)
    return None
