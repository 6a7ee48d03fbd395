"""Bring a remote to what the repository holds: plan, take the lock, plan again, write stage by stage, note it.

    snapshot = take(repository, names)
    survey = look_at(store, snapshot, delete=False, jobs=4)      nothing is written: `survey.plan` tells what would be
    carry_out(store, snapshot, …)                                the same, under the remote's lock, and then done

A push that ended anywhere is done again by the next one, which sends what is not there yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from modelwright.digest import sha256
from modelwright.errors import RemoteConflictError, RepositoryError
from modelwright.remotes.index import INDEX, SCHEMA, RemoteIndex, RemoteObject, read_index
from modelwright.remotes.lock import push_lock
from modelwright.remotes.order import PushPlan, PushStage, Write, conflicts, plan_push
from modelwright.remotes.sides import Held, ModelSide, Remote, Version, check_names, each, here, look
from modelwright.remotes.store import RemoteStore
from modelwright.repository.journal import who
from modelwright.repository.ledger import ServingState
from modelwright.repository.repository import Repository
from modelwright.repository.versions import composing_first
from modelwright.suggest import did_you_mean
from modelwright.text import size as size_text

Say = Callable[[str], object]
Pause = Callable[[float], None]


@dataclass(frozen=True)
class PushSnapshot:
    """The repository, as it is when a push begins."""

    name: str  # of its folder, for messages
    wanted: Mapping[str, ModelSide]
    left_out: Mapping[str, str]  # models that are not pushed, and why
    highest: Mapping[str, int]  # the ledger
    serving: Mapping[str, ServingState]
    gone: frozenset[str]  # models that left the repository

    @classmethod
    def empty(cls, repository: Repository) -> PushSnapshot:
        """Of a push of nothing."""
        ledger = repository.ledger()
        return cls(repository.root.name, {}, {}, ledger.versions, ledger.serving, frozenset())


@dataclass(frozen=True)
class Survey:
    """What is at a remote, and what a push would change."""

    remote: Remote
    plan: PushPlan
    same: Mapping[str, RemoteObject]  # objects that are what is here, whoever wrote them


@dataclass(frozen=True)
class Pushed:
    url: str
    plan: PushPlan
    left_out: Mapping[str, str]
    dry_run: bool
    seconds: float = 0.0


def take(repository: Repository, names: Sequence[str] = ()) -> PushSnapshot:
    """The named models with those that they run, or all. Raises RepositoryError for an unknown name, and for a named
    model that cannot be pushed; others are left out."""
    known, ledger = repository.models(), repository.ledger()
    for name in names:
        if name not in known:
            raise RepositoryError(f"{name}: is not in {repository.root.name}", did_you_mean(name, known))
    wanted: dict[str, ModelSide] = {}
    left_out: dict[str, str] = {}
    for model in composing_first(repository, names or known):
        if model not in known:
            continue  # the plan says who misses it
        try:
            wanted[model] = here(repository, model)
        except RepositoryError as error:
            if names:
                raise
            left_out[model] = str(error)
    gone = frozenset(ledger.versions) - frozenset(known)
    return PushSnapshot(repository.root.name, wanted, left_out, ledger.versions, ledger.serving, gone)


def look_at(store: RemoteStore, snapshot: PushSnapshot, *, delete: bool, jobs: int, share: bool = False) -> Survey:
    """Raises RemoteError for a remote of another repository, or with other versions under the same numbers."""
    remote = look_there(store, snapshot, jobs)
    index = remote.index
    others = sorted(remote.owned_models - set(snapshot.highest) - set(snapshot.wanted))
    if others and not share and index is not None:
        problem = f"holds models of another repository: {', '.join(others)} (pushed by {index.who})"
        hint = "push to a prefix of its own; or pull them first; or, to have both there, run with --share"
        raise RemoteConflictError(f"{store.place.url}: {problem}", hint)
    for model, side in snapshot.wanted.items():
        check_names([*side.tops, *side.texts, *(name for name, _ in _files({model: side}))], store.place.url)
    remote, same = _resolved(store, snapshot, remote, jobs)
    found = conflicts(snapshot.wanted, remote)
    if found:
        lines = "".join(f"\n  {line}" for line in found)
        hint = "a number is never used twice: push to a prefix of its own"
        raise RemoteConflictError(f"{store.place.url}: holds other versions under the same numbers:{lines}", hint)
    gone = snapshot.gone & remote.owned_models & set(remote.sides)
    plan = plan_push(snapshot.wanted, remote, delete=delete, gone=gone)
    return Survey(remote, plan, same)


def look_there(store: RemoteStore, snapshot: PushSnapshot, jobs: int) -> Remote:
    return look(store, read_index(store), snapshot.wanted, jobs)


def _resolved(
    store: RemoteStore, snapshot: PushSnapshot, remote: Remote, jobs: int
) -> tuple[Remote, dict[str, RemoteObject]]:
    """Find out of objects whose SHA-256 is not known whether they are what is here."""
    unknown: list[tuple[str, Held]] = []
    same: dict[str, RemoteObject] = {}
    for name, held in _files(snapshot.wanted):
        entry = remote.entries.get(name)
        if entry is None or entry.size_bytes != held.size_bytes:
            continue
        known = remote.index.sha256(name, entry) if remote.index else ""
        if known == held.sha256:
            same[name] = RemoteObject(sha256=known, size_bytes=entry.size_bytes, stamp=entry.stamp)
        elif not known and held.file is not None:
            unknown.append((name, held))

    def is_same(item: tuple[str, Held]) -> bool:
        name, held = item
        assert held.file is not None
        return store.is_same(name, remote.entries[name], held.file, held.sha256)

    for (name, held), equal in zip(unknown, each(jobs, is_same, unknown), strict=True):
        if equal:
            entry = remote.entries[name]
            same[name] = RemoteObject(sha256=held.sha256, size_bytes=entry.size_bytes, stamp=entry.stamp)
    for model, side in snapshot.wanted.items():
        there = remote.sides.get(model, ModelSide(model)).texts
        for inner, text in side.texts.items():
            if there.get(inner) == text:
                entry, name = remote.entries[f"{model}/{inner}"], f"{model}/{inner}"
                same[name] = RemoteObject(sha256=sha256(text.encode()), size_bytes=entry.size_bytes, stamp=entry.stamp)
    sides = {model: _with_digests(side, same) for model, side in remote.sides.items()}
    return Remote(remote.entries, remote.index, sides), same


def _with_digests(side: ModelSide, same: Mapping[str, RemoteObject]) -> ModelSide:
    def known(prefix: str, files: Mapping[str, Held]) -> dict[str, Held]:
        return {
            name: Held(same[prefix + name].sha256, held.size_bytes) if prefix + name in same else held
            for name, held in files.items()
        }

    versions = {
        number: Version(known(f"{side.model}/{number}/", version.files), version.manifest)
        for number, version in side.versions.items()
    }
    return ModelSide(side.model, side.texts, known(f"{side.model}/", side.tops), versions)


def _files(sides: Mapping[str, ModelSide]) -> list[tuple[str, Held]]:
    found = []
    for model, side in sides.items():
        found += [(f"{model}/{name}", held) for name, held in side.tops.items()]
        for number, version in side.versions.items():
            found += [(f"{model}/{number}/{name}", held) for name, held in version.files.items()]
    return found


# --- doing it ---------------------------------------------------------------------------------------------------------


def carry_out(
    store: RemoteStore,
    snapshot: PushSnapshot,
    *,
    delete: bool = False,
    share: bool = False,
    jobs: int = 4,
    settle_s: float = 60,
    wait: bool = False,
    say: Say = lambda _: None,
    pause: Pause = time.sleep,
) -> PushPlan:
    """Push, under the remote's lock. Returns what was done."""
    with push_lock(store, wait=wait, say=say) as check:
        survey = look_at(store, snapshot, delete=delete, jobs=jobs, share=share)
        run = _Run(store, snapshot, survey, jobs, say)
        run.claim()
        for stage in survey.plan.stages:
            if stage.waits and settle_s:
                say(f"waits {settle_s:g} s, until servers that poll have followed")
                pause(settle_s)
            check()
            run.stage(stage)
        run.finish()
    return survey.plan


@dataclass
class _Run:
    store: RemoteStore
    snapshot: PushSnapshot
    survey: Survey
    jobs: int
    say: Say
    written: dict[str, RemoteObject] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def claim(self) -> None:
        """Note what is about to be written, so that it is ours wherever this ends."""
        writes = [write for stage in self.survey.plan.stages for write in stage.writes]
        claims = {
            write.name: RemoteObject(sha256=write.sha256, size_bytes=write.size_bytes)
            for write in writes
            if write.name not in self._known
        }
        if writes:
            self._write_index({**self._known, **self.survey.same, **claims})

    @property
    def _known(self) -> Mapping[str, RemoteObject]:
        index = self.survey.remote.index
        return index.objects if index else {}

    def stage(self, stage: PushStage) -> None:
        if stage.title == "files":
            size = sum(write.size_bytes for write in stage.writes)
            self.say(f"{len(stage.writes)} objects, {size_text(size)}, to {self.store.place.url}")
        for name, made in each(1 if stage.in_turn else self.jobs, self._write, stage.writes):
            self.written[name] = made
        each(1 if stage.in_turn else self.jobs, self.store.delete, stage.deletes)
        self.deleted.update(stage.deletes)
        if stage.title == "files":
            self._write_index({**self._known, **self.survey.same, **self.written})

    def _write(self, write: Write) -> tuple[str, RemoteObject]:
        entry = self.store.put(write.name, write.source, write.sha256)
        return write.name, RemoteObject(sha256=write.sha256, size_bytes=entry.size_bytes, stamp=entry.stamp)

    def finish(self) -> None:
        objects = {**self._known, **self.survey.same, **self.written}
        there = {*self.survey.remote.entries, *self.written} - self.deleted
        self._write_index({name: item for name, item in objects.items() if name in there})

    def _write_index(self, objects: Mapping[str, RemoteObject]) -> None:
        old = self.survey.remote.index
        snapshot = self.snapshot
        highest = dict(old.highest) if old else {}
        serving = dict(old.serving) if old else {}
        for model, side in snapshot.wanted.items():
            highest[model] = max(highest.get(model, 0), snapshot.highest.get(model, 0), *side.versions)
            serving.pop(model, None)
            if model in snapshot.serving:
                serving[model] = snapshot.serving[model]
        index = RemoteIndex(
            schema=SCHEMA,
            time=datetime.now(timezone.utc).replace(microsecond=0),
            who=who(),
            highest=highest,
            serving=serving,
            objects=dict(objects),
        )
        self.store.put(INDEX, index.text())
