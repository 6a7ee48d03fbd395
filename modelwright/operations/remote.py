"""`push`, `pull` and `diff-remote`: the repository, and copies of it in object stores and folders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from modelwright.build.build import LOCK
from modelwright.errors import RemoteConflictError, RemoteError
from modelwright.facts.part import JsonObject
from modelwright.fsops import locked
from modelwright.operations.follow import follow
from modelwright.project.project import ProjectConfig
from modelwright.remotes.order import ModelChange
from modelwright.remotes.place import place_of
from modelwright.remotes.pull import Pulled, PulledModel, PullSurvey, look_for
from modelwright.remotes.pull import pull as pull_models
from modelwright.remotes.push import Pushed, PushSnapshot, Survey, carry_out, look_at, look_there, take
from modelwright.remotes.record import copies, write_record
from modelwright.remotes.sides import ModelSide
from modelwright.remotes.store import open_store
from modelwright.repository.repository import Repository
from modelwright.suggest import did_you_mean

Result = TypeVar("Result")
Say = Callable[[str], object]
JOBS = 4


@dataclass(frozen=True)
class RemoteModelDifference:
    """One model, here and there. Versions are {number: version digest}."""

    model: str
    here: Mapping[int, str]
    there: Mapping[int, str]
    served_here: tuple[int, ...]
    served_there: tuple[int, ...]
    push: ModelChange | None  # what a push would change, where it can be pushed
    pull: PulledModel | None


@dataclass(frozen=True)
class RemoteDifference:
    url: str
    models: tuple[RemoteModelDifference, ...]
    push_says: tuple[str, ...]
    pull_says: tuple[str, ...]
    push_error: RemoteConflictError | None = None  # why nothing can be pushed
    pull_error: RemoteConflictError | None = None

    @property
    def is_same(self) -> bool:
        changes = [change for model in self.models for change in (model.push, model.pull) if change is not None]
        return not self.push_error and not self.pull_error and not any(change.changes_anything for change in changes)


def push(
    project: ProjectConfig,
    url: str,
    names: Sequence[str] = (),
    *,
    endpoint_url: str | None = None,
    delete: bool = False,
    share: bool = False,
    dry_run: bool = False,
    jobs: int = JOBS,
    settle_s: float = 60,
    wait: bool = False,
    say: Say,
) -> Pushed:
    """Bring a remote to what the repository holds; with `dry_run` say what that takes."""
    place, began = place_of(url, endpoint_url), time.monotonic()
    store, repository = open_store(place), Repository.of(project)
    lock = project.state / LOCK
    with locked(lock, f"modelwright push {place.url}", wait=wait, say=_waiting(say)):
        snapshot = take(repository, names)
        survey = look_at(store, snapshot, delete=delete, jobs=jobs, share=share)
        if dry_run:
            return Pushed(place.url, survey.plan, snapshot.left_out, True, time.monotonic() - began)
        write_record(project.history, place.url, survey.plan.served, keep_old=True)
    plan = survey.plan
    if plan.stages or survey.remote.index is None:
        options = {"delete": delete, "share": share, "jobs": jobs, "settle_s": settle_s, "wait": wait}
        plan = carry_out(store, snapshot, **options, say=say)  # type: ignore[arg-type]
    with locked(lock, f"modelwright push {place.url}", wait=True, say=_waiting(say)):
        write_record(project.history, place.url, plan.served)
        if plan.stages:
            served: JsonObject = {model: [*versions] for model, versions in plan.served.items()}
            repository.journal.append("push", details={"to": place.url, "serves": served})
            repository.reserve()  # the ledger knows the journal's last line
    return Pushed(place.url, plan, snapshot.left_out, False, time.monotonic() - began)


def pull(
    project: ProjectConfig,
    url: str,
    names: Sequence[str] = (),
    *,
    endpoint_url: str | None = None,
    dry_run: bool = False,
    jobs: int = JOBS,
    wait: bool = False,
    say: Say,
) -> Pulled:
    """Bring versions from a remote into the repository; with `dry_run` say which."""
    place, began = place_of(url, endpoint_url), time.monotonic()
    store, repository = open_store(place), Repository.of(project)
    with locked(project.state / LOCK, f"modelwright pull {place.url}", wait=wait, say=_waiting(say)):
        survey = look_for(store, repository, names, jobs=jobs, copies=copies(project.history))
        if not dry_run:
            pull_models(store, repository, survey, project.signing, jobs=jobs, say=say)
            write_record(project.history, place.url, _served(survey.remote.sides))
    if not dry_run and (unrecorded := follow(project, [model.model for model in survey.models])):
        say(unrecorded)
    return Pulled(place.url, survey.models, survey.says, dry_run, time.monotonic() - began)


def diff_remote(
    project: ProjectConfig,
    url: str,
    names: Sequence[str] = (),
    *,
    endpoint_url: str | None = None,
    jobs: int = JOBS,
    wait: bool = False,
    say: Say,
) -> RemoteDifference:
    """What a push and a pull would change. What the remote serves is noted; else nothing is written."""
    place = place_of(url, endpoint_url)
    store, repository = open_store(place), Repository.of(project)
    with locked(project.state / LOCK, f"modelwright diff-remote {place.url}", wait=wait, say=_waiting(say)):
        known = repository.models()
        asked = [name for name in names if name in known]
        wanted = take(repository, asked) if asked or not names else PushSnapshot.empty(repository)
        found, push_error = _attempt(lambda: look_at(store, wanted, delete=False, jobs=jobs))
        sides = found.remote.sides if found else look_there(store, wanted, jobs).sides
        for name in names:
            if name not in known and name not in sides:
                raise RemoteError(f"{name}: is neither here nor at {place.url}", did_you_mean(name, [*known, *sides]))
        there = [name for name in names if name in sides]
        noted = copies(project.history)
        coming, pull_error = _attempt(
            lambda: look_for(store, repository, there, jobs=jobs, copies=noted) if there or not names else None
        )
        write_record(project.history, place.url, _served(sides))
    return RemoteDifference(
        place.url,
        tuple(_difference(name, wanted.wanted, sides, found, coming) for name in _shown(names, wanted.wanted, sides)),
        found.plan.says if found else (),
        coming.says if coming else (),
        push_error,
        pull_error,
    )


def _attempt(look: Callable[[], Result]) -> tuple[Result | None, RemoteConflictError | None]:
    try:
        return look(), None
    except RemoteConflictError as error:
        return None, error


def _shown(names: Sequence[str], here: Mapping[str, ModelSide], there: Mapping[str, ModelSide]) -> list[str]:
    return sorted(names or {*here, *there})


def _difference(
    model: str,
    here: Mapping[str, ModelSide],
    there: Mapping[str, ModelSide],
    found: Survey | None,
    coming: PullSurvey | None,
) -> RemoteModelDifference:
    own, far = here.get(model, ModelSide(model)), there.get(model, ModelSide(model))
    return RemoteModelDifference(
        model,
        here={number: version.digest for number, version in own.versions.items()},
        there={number: version.digest for number, version in far.versions.items()},
        served_here=own.served,
        served_there=far.served,
        push=next((item for item in found.plan.models if item.model == model), None) if found else None,
        pull=next((item for item in coming.models if item.model == model), None) if coming else None,
    )


def _served(sides: Mapping[str, ModelSide]) -> dict[str, dict[int, str]]:
    return {
        model: {number: side.versions[number].digest for number in side.served}
        for model, side in sides.items()
        if side.served
    }


def _waiting(say: Say) -> Say:
    return lambda holder: say(f"waiting for {holder}")
