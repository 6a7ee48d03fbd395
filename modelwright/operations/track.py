"""`track`: MLflow gets what it does not have yet; whole models go to its registry, and come back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.build.build import LOCK
from modelwright.errors import TrackingError
from modelwright.fsops import disk_errors, locked, remove_tree
from modelwright.operations.follow import follow
from modelwright.project.project import FILE, ProjectConfig
from modelwright.remotes.place import RemotePlace
from modelwright.remotes.pull import Pulled, look_for
from modelwright.remotes.pull import pull as pull_models
from modelwright.remotes.push import carry_out, take
from modelwright.remotes.store import FolderStore
from modelwright.repository.repository import Repository

if TYPE_CHECKING:
    from modelwright.tracking.recorder import Sent

Say = Callable[[str], Any]
_JOBS = 4


@dataclass(frozen=True)
class Bundled:
    """A model that was logged to the registry, with those that it runs."""

    model: str
    models: tuple[str, ...]
    run: str  # its id
    size_bytes: int
    seconds: float


def track(project: ProjectConfig) -> Sent:
    """Record what waits, every published version that is not registered, and what is live.

    What the registry did not take is in `problem` of the result. Raises TrackingError where the project does not ask
    for MLflow, or it is not installed.
    """
    from modelwright.tracking import recorder

    if not project.tracking.mlflow:
        raise TrackingError(f"{FILE}: builds are not recorded", "write: [tracking] and mlflow = true")
    recorder.check_installed(project)
    return recorder.send(project)


def track_push(project: ProjectConfig, model: str, *, wait: bool = False, say: Say) -> Bundled:
    """Log the whole folder of a model to the registry, with those of the models that it runs.

    Raises RepositoryError for a model that is not there, TrackingError for a registry that does not take it.
    """
    from modelwright.tracking.bundles import log_folder

    _check_installed()
    began, repository = time.monotonic(), Repository.of(project)
    with _folder(project) as folder:
        store = FolderStore(RemotePlace(f"models:/{model}", "file", str(folder)))
        with locked(project.state / LOCK, "modelwright track push", wait=wait, say=_waiting(say)):
            snapshot = take(repository, [model])
            carry_out(store, snapshot, jobs=_JOBS, settle_s=0, say=lambda _: None)
        size = sum(entry.size_bytes for entry in store.entries().values())
        run = log_folder(project, model, folder)
    return Bundled(model, tuple(sorted(snapshot.wanted)), run, size, time.monotonic() - began)


def track_pull(project: ProjectConfig, model: str, *, dry_run: bool = False, wait: bool = False, say: Say) -> Pulled:
    """Bring a model that `track_push` logged into the repository, each version under its number and checked.

    `model` is its name, or `runs:/ID`. Raises TrackingError for one that the registry does not have, else as `pull`.
    """
    from modelwright.tracking.bundles import fetch_folder

    _check_installed()
    began, repository = time.monotonic(), Repository.of(project)
    with _folder(project) as folder:
        run, fetched = fetch_folder(project, model, folder)
        url = f"runs:/{run}"
        store = FolderStore(RemotePlace(url, "file", str(fetched)))
        with locked(project.state / LOCK, "modelwright track pull", wait=wait, say=_waiting(say)):
            survey = look_for(store, repository, (), jobs=_JOBS)
            if not dry_run:
                pull_models(store, repository, survey, project.signing, jobs=_JOBS, say=say)
    if not dry_run and (unrecorded := follow(project, [item.model for item in survey.models])):
        say(unrecorded)
    return replace(Pulled(url, survey.models, survey.says, dry_run), seconds=time.monotonic() - began)


def _check_installed() -> None:
    if find_spec("mlflow") is None:
        raise TrackingError("mlflow is not installed", "pip install 'modelwright[mlflow]'")


@contextmanager
def _folder(project: ProjectConfig) -> Iterator[Path]:
    """An empty folder for a bundle, which is removed."""
    folder = project.state / "tracking" / f"bundle-{uuid.uuid4().hex}"
    with disk_errors(folder):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove_tree(folder)


def _waiting(say: Say) -> Say:
    return lambda holder: say(f"waiting for {holder}")
