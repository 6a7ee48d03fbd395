"""Bring versions from a remote into the repository: each is checked whole before any of it becomes visible.

    survey = look_for(store, repository, names, jobs)         nothing is written: it tells what would come
    pull(store, repository, survey, project, …)               download, check, publish

A version comes under its own number. A number that this repository has used for something else is refused. The config
comes along where the remote is ahead; where this repository has newer versions, its own config stays.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.config.edit import with_versions
from modelwright.digest import sha256
from modelwright.errors import DiskFullError, RemoteConflictError, RemoteError
from modelwright.facts.part import JsonObject
from modelwright.fsops import disk_errors, read_file, remove_tree
from modelwright.project.signing import Signing
from modelwright.remotes.index import RemoteIndex, read_index
from modelwright.remotes.order import composing_first, is_same, needed_by
from modelwright.remotes.record import Copy
from modelwright.remotes.sides import Held, ModelSide, Remote, Version, each, here, look, served
from modelwright.remotes.store import RemoteStore
from modelwright.repository import signing
from modelwright.repository.ledger import Ledger, ServingState
from modelwright.repository.move import Move, carry_out
from modelwright.repository.policy import utc_now, with_policy
from modelwright.repository.repository import Change, Repository
from modelwright.suggest import did_you_mean
from modelwright.text import size as size_text
from modelwright.triton.layout import ABOUT, CONFIG, MANIFEST, environment_of

Copies = Mapping[tuple[str, int], Sequence[Copy]]
Say = Callable[[str], object]
_SPARE = 1.1  # of the room that a pull needs


@dataclass(frozen=True)
class PulledModel:
    """What a pull changes of one model."""

    model: str
    add: tuple[int, ...] = ()
    config: bool = False
    served: tuple[int, ...] = ()  # afterwards
    size_bytes: int = 0

    @property
    def changes_anything(self) -> bool:
        return bool(self.add or self.config)


@dataclass(frozen=True)
class PullSurvey:
    remote: Remote
    index: RemoteIndex | None
    models: tuple[PulledModel, ...]
    says: tuple[str, ...]  # what is left out, and why
    texts: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)  # of each model that changes
    states: Mapping[str, ServingState] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(model.size_bytes for model in self.models)


@dataclass(frozen=True)
class Pulled:
    url: str
    models: tuple[PulledModel, ...]
    says: tuple[str, ...]
    dry_run: bool
    seconds: float = 0.0


def look_for(
    store: RemoteStore, repository: Repository, names: Sequence[str], *, jobs: int, copies: Copies | None = None
) -> PullSurvey:
    """What a pull would bring. `copies` are the versions that remotes were seen to serve.

    Raises RemoteError for an unknown name, and for versions whose numbers stand for something else here.
    """
    index = read_index(store)
    local = {model: here(repository, model) for model in repository.models()}
    remote = look(store, index, local, jobs)
    for name in names:
        if name not in remote.sides:
            raise RemoteError(f"{name}: is not at {store.place.url}", did_you_mean(name, remote.sides))
    draft = _Draft(store, repository, remote, local, copies or {})
    order = composing_first(remote.sides, names or sorted(remote.sides))
    return draft.survey([model for model in order if model in remote.sides], named=set(names))


class _Draft:
    def __init__(
        self, store: RemoteStore, repository: Repository, remote: Remote, local: Mapping[str, ModelSide], copies: Copies
    ) -> None:
        self.store, self.repository, self.remote, self.local = store, repository, remote, local
        self.copies = copies
        self.ledger = repository.ledger()
        self.refused: list[str] = []
        self.says: list[str] = []

    def survey(self, order: Sequence[str], named: set[str]) -> PullSurvey:
        adds = {model: found for model in order if (found := self._coming(model, model in named)) is not None}
        if self.refused:
            lines = "".join(f"\n  {line}" for line in self.refused)
            hint = (
                "a number is never used twice: pull into another project, or build again, which takes the next number"
            )
            raise RemoteConflictError(f"{self.store.place.url}: versions cannot be pulled:{lines}", hint)
        sides = {model: self._side_then(model, adds[model]) for model in adds}
        kept = [side for name, side in self.local.items() if name not in sides]
        needed = needed_by([*sides.values(), *kept])
        models, texts, states = [], {}, {}
        for model, side in sides.items():
            self._check_runs(side, sides)
            edits, state = self._texts_then(model, side, needed.get(model, set()))
            config = bool(edits) or self._tops_differ(model, side)
            own = served({**side.texts, **edits}[CONFIG] or "", model, side.versions)
            size = sum(held.size_bytes for number in adds[model] for held in side.versions[number].files.values())
            entry = PulledModel(model, tuple(adds[model]), config, own, size)
            models.append(entry)
            if entry.changes_anything:
                texts[model], states[model] = edits, state
        return PullSurvey(self.remote, self.remote.index, tuple(models), tuple(self.says), texts, states)

    def _coming(self, model: str, named: bool) -> list[int] | None:
        """The versions that come. None for a model that is left out."""
        there = self.remote.sides[model]
        if there.config is None:
            why = (
                "is not complete there: its push did not end"
                if there.is_closed
                else "has no config that a server reads"
            )
            self._leave_out(model, why, named)
            return None
        strange = [number for number, version in there.versions.items() if version.manifest is None]
        if strange:
            hint = "modelwright adopt makes builders of models that others made"
            self._leave_out(model, f"has versions that Modelwright did not make; {hint}", named)
            return None
        found = []
        for number, version in sorted(there.versions.items()):
            if version.manifest is not None and not set(version.manifest.files) <= set(version.files):
                self.says.append(f"{model}: version {number} is not complete there, and stays out")
            elif self._is_welcome(model, number, version):
                found.append(number)
        if model not in self.local and not found:
            return None
        return found

    def _leave_out(self, model: str, why: str, named: bool) -> None:
        if named:
            raise RemoteError(f"{model}: {why}")
        self.says.append(f"{model}: {why}")

    def _is_welcome(self, model: str, number: int, version: Version) -> bool:
        digest = version.digest
        if model in self.local and number in self.local[model].versions:
            own = self.local[model].versions[number].digest
            if own != digest:
                self.refused.append(f"{model}: version {number} is another one here ({own[:12]}, there {digest[:12]})")
            return False
        index = self.remote.index
        if number in {**self._withdrawn_there(model, index), **self.ledger.state(model).withdrawn}:
            self.says.append(f"{model}: version {number} was withdrawn, and stays out")
            return False
        taken = self.repository.taken(model, number)
        if taken is None or taken == digest:
            return True
        retired = self.repository.retired_manifest(model, number) if number in self.repository.retired(model) else None
        if retired is not None and retired.version_digest == digest:
            self.says.append(f"{model}: version {number} is retired here: modelwright restore {model} {number}")
            return False
        known = {copy.digest for copy in self.copies.get((model, number), ())}
        if not taken and retired is None and known == {digest}:
            return True
        problem = (
            "was another one here" if taken or retired is not None else "was used here, and nothing tells for what"
        )
        self.refused.append(f"{model}: version {number} {problem} (there {digest[:12]})")
        return False

    def _withdrawn_there(self, model: str, index: RemoteIndex | None) -> dict[int, str]:
        return dict(index.serving.get(model, ServingState()).withdrawn) if index else {}

    def _is_ahead(self, model: str) -> bool:
        """Whether the remote's config is the newer one."""
        there = [number for number in self.remote.sides[model].versions if number not in self._left(model)]
        return model not in self.local or max(there, default=0) >= max(self.local[model].versions, default=0)

    def _left(self, model: str) -> set[int]:
        return set(self._withdrawn_there(model, self.remote.index))

    def _side_then(self, model: str, add: Sequence[int]) -> ModelSide:
        there, own = self.remote.sides[model], self.local.get(model, ModelSide(model))
        versions = {**own.versions, **{number: there.versions[number] for number in add}}
        if not self._is_ahead(model):
            return ModelSide(model, own.texts, own.tops, versions)
        return ModelSide(model, there.texts, there.tops, versions)

    def _texts_then(self, model: str, side: ModelSide, needed: set[int]) -> tuple[dict[str, str | None], ServingState]:
        """The configs that change, and the state that goes with them."""
        ahead = self._is_ahead(model)
        state, before = self._state(model, ahead), self.local.get(model, ModelSide(model))
        wanted = {*(self.remote.sides[model] if ahead else before).served, *needed}.intersection(side.versions)
        edits: dict[str, str | None] = {}
        for name, text in side.texts.items():
            text, state = with_policy(text, model, side.versions, state, needed, utc_now())
            if set(served(text, model, side.versions)) != wanted:
                text = with_versions(text, wanted)
            if text != before.texts.get(name):
                edits[name] = text
        gone = [name for name in before.texts if name not in side.texts and environment_of(name)]
        return {**edits, **dict.fromkeys(gone)}, state

    def _state(self, model: str, ahead: bool) -> ServingState:
        own, index = self.ledger.state(model), self.remote.index
        there = index.serving.get(model, ServingState()) if index else ServingState()
        if not ahead:
            return own
        return there.model_copy(
            update={
                "withdrawn": {**there.withdrawn, **own.withdrawn},
                "released": {**there.released, **own.released},
            }
        )

    def _tops_differ(self, model: str, side: ModelSide) -> bool:
        own = self.local.get(model, ModelSide(model))
        return any(not is_same(own.tops.get(name), held) for name, held in side.tops.items())

    def _check_runs(self, side: ModelSide, sides: Mapping[str, ModelSide]) -> None:
        """Raises RemoteError for a pipeline whose models are neither here nor come along."""
        for name in sorted(side.runs):
            other = sides.get(name) or self.local.get(name)
            if other is None:
                raise RemoteConflictError(f"{side.model}: runs {name}, which is neither here nor can be pulled")
            missing = sorted(side.pins.get(name, frozenset()) - set(other.versions))
            if missing:
                raise RemoteConflictError(
                    f"{side.model}: needs {name} version {missing[0]}, which is neither here nor comes"
                )


# --- doing it ---------------------------------------------------------------------------------------------------------


def pull(
    store: RemoteStore, repository: Repository, survey: PullSurvey, settings: Signing, *, jobs: int, say: Say
) -> None:
    """Only for the holder of the build lock. Raises ModelwrightError, and then nothing of the repository has changed,
    or models up to one are as they are to be."""
    coming = [model for model in survey.models if model.changes_anything]
    if not coming:
        return
    staged = repository.staging / f"pull-{uuid.uuid4().hex}"
    with disk_errors(staged):
        staged.mkdir(parents=True)
        try:
            _check_room(staged, survey.size_bytes)
            say(f"{size_text(survey.size_bytes)} from {store.place.url}")
            changes = [_staged_change(store, survey, model, staged, settings, jobs) for model in coming]
            _publish(store, repository, survey, changes)
        finally:
            remove_tree(staged)


def _check_room(staged: Path, size_bytes: int) -> None:
    """A version is downloaded, and then copied into place."""
    free, needs = shutil.disk_usage(staged).free, int(2 * size_bytes * _SPARE)
    if free < needs:
        hint = "free some space and run the same command again; nothing was changed"
        raise DiskFullError(f"{staged.parent}: {size_text(needs)} are needed, {size_text(free)} are free", hint)


def _staged_change(
    store: RemoteStore, survey: PullSurvey, pulled: PulledModel, staged: Path, settings: Signing, jobs: int
) -> Change:
    """Download what a model needs, and check it."""
    model, there = pulled.model, survey.remote.sides[pulled.model]
    folder = staged / model
    for number in pulled.add:
        fetch_version(store, model, number, there.versions[number], folder / str(number), jobs)
        signing.check(folder / str(number), settings, f"{model}/{number}")
    versions = [_version_change(model, number, there.versions[number], folder / str(number)) for number in pulled.add]
    tops = _fetch_tops(store, model, there, folder / "top", jobs) if pulled.config else {}
    edits = {name: None if text is None else text.encode() for name, text in survey.texts[model].items()}
    if not versions:
        return Change(model, top_files=edits, top_copies=tops)
    first, *more = versions
    return Change(
        model,
        first.version,
        first.version_files,
        first.manifest,
        edits,
        tops,
        tuple(more),
        version_data=first.version_data,
    )


def fetch_version(store: RemoteStore, model: str, number: int, version: Version, folder: Path, jobs: int = 4) -> None:
    """Download a version into a new folder. Raises RemoteError where it is not what its manifest says."""
    manifest = version.manifest
    if manifest is None:
        raise RemoteError(f"{store.place.of(f'{model}/{number}')}: has no {MANIFEST}")
    unknown = sorted(set(version.files) - set(manifest.files) - set(ABOUT))
    missing = sorted(set(manifest.files) - set(version.files))
    if unknown or missing:
        problem = f"{unknown[0]} was added" if unknown else f"{missing[0]} is missing"
        hint = "push it again from a repository that has it, or pull other models"
        raise RemoteError(f"{store.place.of(f'{model}/{number}')}: is not what its manifest says: {problem}", hint)
    for name in version.files:
        _below(folder, name).parent.mkdir(parents=True, exist_ok=True)

    def fetched(name: str) -> None:
        held = version.files[name]
        wanted = manifest.files[name].sha256 if name in manifest.files else held.sha256
        _fetch_checked(store, f"{model}/{number}/{name}", folder / name, wanted)

    each(jobs, fetched, version.files)


def _fetch_checked(store: RemoteStore, name: str, target: Path, wanted: str) -> None:
    """Once more where it is not right: it may have been cut short on its way."""
    for _ in range(2):
        if store.fetch(name, target) == wanted or not wanted:
            return
    hint = "it was damaged there, or changed by hand: push it again from a repository that has it"
    raise RemoteError(f"{store.place.of(name)}: is not what its manifest says", hint)


def _below(folder: Path, name: str) -> Path:
    """A file below a folder. Raises RemoteError for a name that leads elsewhere."""
    path = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise RemoteError(f"{name!r}: leads out of its folder", "remove that object")
    return path


def _version_change(model: str, number: int, version: Version, folder: Path) -> Change:
    manifest = version.manifest
    assert manifest is not None
    files = {name: folder / name for name in manifest.files}
    about = {name: read_file(folder / name) for name in version.files if name in ABOUT and name not in files}
    return Change(model, number, files, manifest, version_data=about)


def _fetch_tops(store: RemoteStore, model: str, there: ModelSide, folder: Path, jobs: int) -> dict[str, Path]:
    for name in there.tops:
        _below(folder, name).parent.mkdir(parents=True, exist_ok=True)

    def fetched(item: tuple[str, Held]) -> None:
        name, held = item
        _fetch_checked(store, f"{model}/{name}", folder / name, held.sha256)

    each(jobs, fetched, there.tops.items())
    return {name: folder / name for name in there.tops}


def _publish(store: RemoteStore, repository: Repository, survey: PullSurvey, changes: Sequence[Change]) -> None:
    """The numbers are taken before anything is published, with what they stand for."""
    fixed = {change.model: _digests(change) for change in changes}
    highest = survey.index.highest if survey.index else {}
    versions = {model: max([0, *numbers, highest.get(model, 0)]) for model, numbers in fixed.items()}
    known = {model: {str(number): digest for number, digest in numbers.items()} for model, numbers in fixed.items()}
    repository.merge(Ledger(versions, {model: numbers for model, numbers in known.items() if numbers}))
    move = Move(
        what="pull",
        model=changes[0].model if len(changes) == 1 else "",
        version=None,
        changes=tuple(changes),
        states=survey.states,
        serves={model.model: model.served for model in survey.models if model.changes_anything},
        says=(),
    )
    details: JsonObject = {"from": store.place.url, "versions": {change.model: _told(change) for change in changes}}
    carry_out(repository, move, details=details)


def _digests(change: Change) -> dict[int, str]:
    return {
        item.version: item.manifest.version_digest
        for item in change.versions
        if item.version is not None and item.manifest is not None
    }


def _told(change: Change) -> JsonObject:
    """What the journal has of each version, as a build notes it."""
    manifests = {item.version: sha256(item.version_data[MANIFEST]) for item in change.versions}
    return {
        str(number): {"digest": digest, "manifest": manifests[number]} for number, digest in _digests(change).items()
    }
