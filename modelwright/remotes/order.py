"""What a push writes, and in which order: at every moment a server may look, and may start.

An object store has no rename: each object appears by itself. So a config says at every moment what is complete:

    hold       configs name the versions that are served now, so that new ones are not looked at; a model that is new
               gets a closed config, which no server loads
    files      manifests first: they say whose version it is. Then all other files of new versions, and new top files
    switch     the new configs, models before the pipelines that run them. They serve what is new, and what pipelines
               there needed until now
    settle     once servers that poll have followed: what no pipeline needs any more is not served any more
    drop       versions, files and models that left the repository, where that was asked for
    finish     configs as they are in the repository. A server does not notice that an object of an object store was
               removed; it notices a config that was written

Pure: what is here and there comes in, a plan goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from modelwright.config.edit import with_versions
from modelwright.digest import sha256
from modelwright.errors import RemoteConflictError
from modelwright.remotes.sides import Held, ModelSide, Remote, Version, closed_config, is_closed, is_config, served
from modelwright.remotes.store import Source
from modelwright.repository.versions import in_load_order
from modelwright.triton.layout import CONFIG, MANIFEST, environment_of


@dataclass(frozen=True)
class Write:
    name: str
    source: Source
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class PushStage:
    """What may happen at the same time; with `in_turn` one after the other. A killed push goes on at any of them."""

    title: str
    writes: tuple[Write, ...] = ()
    deletes: tuple[str, ...] = ()
    in_turn: bool = False
    waits: bool = False  # before it, servers that poll get time to follow


@dataclass(frozen=True)
class ModelChange:
    """What a push changes of one model."""

    model: str
    add: tuple[int, ...] = ()  # versions that are uploaded, whole or in part
    drop: tuple[int, ...] = ()  # versions that are removed
    config: bool = False  # its config or another top file changes
    served: tuple[int, ...] = ()  # afterwards
    removed: bool = False
    size_bytes: int = 0  # of what is sent

    @property
    def changes_anything(self) -> bool:
        return bool(self.add or self.drop or self.config or self.removed)


@dataclass(frozen=True)
class PushPlan:
    models: tuple[ModelChange, ...]
    stages: tuple[PushStage, ...]
    says: tuple[str, ...] = ()  # what stays there, and why
    served: Mapping[str, Mapping[int, str]] = field(default_factory=dict)  # afterwards: model → version → digest

    @property
    def size_bytes(self) -> int:
        return sum(model.size_bytes for model in self.models)


def conflicts(wanted: Mapping[str, ModelSide], remote: Remote) -> list[str]:
    """Versions that are there already, and are not those of this repository."""
    found = []
    for model, side in wanted.items():
        there = remote.sides.get(model)
        if there is not None and not _is_pushed(side, there, remote):
            found.append(f"{model}: a model of this name is there, and Modelwright did not push it")
            continue
        for number, version in there.versions.items() if there else ():
            ours = side.versions.get(number)
            if ours is None:
                continue
            if version.manifest is not None and version.digest != ours.digest:
                digests = f"({version.digest[:12]}, here {ours.digest[:12]})"
                found.append(f"{model}: version {number} is another one there {digests}")
            elif version.manifest is None and not all(
                remote.owned(f"{model}/{number}/{name}") or is_same(held, ours.files.get(name))
                for name, held in version.files.items()
            ):
                found.append(f"{model}: version {number} is there without a {MANIFEST}: Modelwright did not push it")
    return found


def _is_pushed(here: ModelSide, there: ModelSide, remote: Remote) -> bool:
    """Whether what is there under a model's name comes from a push: by the index; where that was lost, by a version."""
    if there.is_closed or here.model in remote.owned_models:
        return True
    return any(number in here.versions and version.manifest for number, version in there.versions.items())


def plan_push(
    wanted: Mapping[str, ModelSide], remote: Remote, *, delete: bool = False, gone: Iterable[str] = ()
) -> PushPlan:
    """`wanted` are the models here, `gone` those that left the repository.

    Raises RemoteConflictError for a pipeline that would be left without what it runs.
    """
    draft = _Draft(wanted, remote, delete, sorted(gone) if delete else [])
    draft.check()
    return draft.plan()


class _Draft:
    def __init__(self, wanted: Mapping[str, ModelSide], remote: Remote, delete: bool, removed: Sequence[str]) -> None:
        self.remote = remote
        self.removed = removed
        self.order = composing_first(wanted, sorted(wanted))
        needed_now = needed_by(remote.sides.values())
        others = [side for name, side in remote.sides.items() if name not in wanted and name not in removed]
        needed_then = needed_by([*wanted.values(), *others])
        self.others = others
        self.models = {
            name: _Model(wanted[name], remote, delete, needed_now.get(name, set()), needed_then.get(name, set()))
            for name in self.order
        }

    def check(self) -> None:
        """Raises RemoteConflictError for a pipeline that needs what will not be there."""
        lost = set(self.removed)
        for side in [*(model.here for model in self.models.values()), *self.others]:
            needs_here = side.model in self.models
            for name in sorted(side.runs):
                if name in lost:
                    hint = "push that pipeline, too, without it; or push without --delete"
                    raise RemoteConflictError(f"{name}: left the repository, and {side.model} runs it there", hint)
                there = name in self.models or name in self.remote.sides
                if needs_here and not there:
                    hint = f"push it, too: name it, or no model at all for all of them (modelwright build {name})"
                    raise RemoteConflictError(f"{side.model}: runs {name}, which is neither here nor there", hint)
            for name, numbers in side.pins.items():
                own = self.models.get(name)
                versions = own.versions_then if own else set(self._versions_there(name))
                missing = sorted(numbers - versions)
                if missing and needs_here:
                    hint = f"modelwright restore {name} {missing[0]}, or build {side.model} again"
                    raise RemoteConflictError(
                        f"{side.model}: needs {name} version {missing[0]}, which is not there", hint
                    )

    def _versions_there(self, name: str) -> Iterable[int]:
        side = self.remote.sides.get(name)
        return side.versions if side else ()

    def plan(self) -> PushPlan:
        models = list(self.models.values())
        files = [write for model in models for write in model.files()]
        stages = [
            PushStage("hold", _all(model.hold() for model in models)),
            PushStage("manifests", tuple(write for write in files if _is_manifest(write.name))),
            PushStage("files", tuple(write for write in files if not _is_manifest(write.name))),
            PushStage("switch", _all(model.switch() for model in models), self._stale_configs(), in_turn=True),
            PushStage("settle", _all(model.settle() for model in models), in_turn=True, waits=True),
            PushStage("close", self._closing(), self._configs_of_removed()),
            PushStage("drop", deletes=self._dropped()),
            PushStage("finish", _all(model.finish() for model in models), self._last_of_removed(), in_turn=True),
        ]
        removed = [ModelChange(name, removed=True) for name in self.removed]
        digests = {model.here.model: model.digests_then() for model in models}
        for side in self.others:
            digests[side.model] = {number: side.versions[number].digest for number in side.served}
        return PushPlan(
            models=(*(model.change() for model in models), *removed),
            stages=tuple(stage for stage in stages if stage.writes or stage.deletes),
            says=tuple(line for model in models for line in model.says()),
            served=digests,
        )

    def _stale_configs(self) -> tuple[str, ...]:
        """Configs of environments that the model has no more."""
        return tuple(name for model in self.models.values() for name in model.stale_configs)

    def _closing(self) -> tuple[Write, ...]:
        return tuple(_text(f"{name}/{CONFIG}", closed_config(name)) for name in reversed(self.removed))

    def _configs_of_removed(self) -> tuple[str, ...]:
        """Those of environments: a server with one of them does not look at config.pbtxt."""
        return tuple(name for name in self._left if environment_of(name.partition("/")[2]))

    @property
    def _left(self) -> list[str]:
        """What Modelwright wrote of the models that go."""
        return [name for name in self.remote.entries if _model_of(name) in self.removed and self.remote.owned(name)]

    def _dropped(self) -> tuple[str, ...]:
        own = [name for model in self.models.values() for name in model.dropped()]
        return (*own, *(name for name in self._left if not is_config(name.partition("/")[2])))

    def _last_of_removed(self) -> tuple[str, ...]:
        return tuple(f"{name}/{CONFIG}" for name in reversed(self.removed))


class _Model:
    """One model that is pushed."""

    def __init__(
        self, here: ModelSide, remote: Remote, delete: bool, needed_now: set[int], needed_then: set[int]
    ) -> None:
        self.here, self.remote = here, remote
        self.there = remote.sides.get(here.model, ModelSide(here.model))
        extra = [number for number in self.there.versions if number not in here.versions]
        self.drop = [number for number in extra if delete and number not in needed_then and self._is_ours(number)]
        self.kept = [number for number in extra if number not in self.drop]
        self.delete = delete
        self.wrong = {number: self._wrong_files(number) for number in here.versions}
        self.add = [number for number, names in self.wrong.items() if names]
        fresh = {number for number in self.add if self._is_incomplete(number)}
        self.served_now = [number for number in self.there.served if number not in fresh]
        self.fresh = sorted(fresh)
        self.versions_then = {*here.versions, *self.kept}
        self.needed_then = needed_then & self.versions_then
        self.needed_now = {number for number in needed_now & set(self.served_now) if self._fits(number)}

    def _is_ours(self, number: int) -> bool:
        names = self.there.versions[number].files
        return all(self.remote.owned(f"{self.here.model}/{number}/{name}") for name in names)

    def _wrong_files(self, number: int) -> list[str]:
        there = self.there.versions.get(number, Version({})).files
        ours = self.here.versions[number].files
        return [name for name, held in ours.items() if not is_same(there.get(name), held)]

    def _is_incomplete(self, number: int) -> bool:
        there = self.there.versions.get(number, Version({})).files
        return any(name not in there for name in self.here.versions[number].files)

    def _fits(self, number: int) -> bool:
        """Whether a version can be served by the new config."""
        version = self.here.versions.get(number) or self.there.versions[number]
        newest = self.here.versions[max(self.here.served)].manifest if self.here.served else None
        return version.manifest is None or newest is None or version.manifest.tensors == newest.tensors

    # The configs, as they are at each stage

    def _texts(self, more: set[int], *, explicit: bool) -> dict[str, str]:
        """The configs of here, which serve what they serve here and `more`, of the versions that will be there."""
        texts = {}
        for name, text in self.here.texts.items():
            own = served(text, self.here.model, self.here.versions)
            wanted = sorted({*own, *(more & self.versions_then)})
            by_itself = served(text, self.here.model, self.versions_then)
            texts[name] = text if list(by_itself) == wanted and not explicit else with_versions(text, wanted)
        return texts

    @cached_property
    def _during(self) -> dict[str, str]:
        return self._texts(self.needed_then | self.needed_now, explicit=bool(self.drop))

    @cached_property
    def _settled(self) -> dict[str, str]:
        return self._texts(self.needed_then, explicit=bool(self.drop))

    @cached_property
    def _final(self) -> dict[str, str]:
        return self._texts(self.needed_then, explicit=False)

    def hold(self) -> list[Write]:
        """Before versions come or go. A config that serves nothing that is complete is closed."""
        if not (self.fresh or self.drop or self._new_tops()):
            return []
        texts = {CONFIG: "", **self.there.texts}
        return [self._config(name, held) for name, text in texts.items() if (held := self._held(text)) != text]

    def _held(self, text: str) -> str:
        now = [number for number in served(text, self.here.model, self.there.versions) if number not in self.fresh]
        if now:
            return with_versions(text, now) if self._moves(text, now) else text
        return text if is_closed(text) else closed_config(self.here.model)

    def _moves(self, text: str, now: Sequence[int]) -> bool:
        """Whether a config serves something else while versions come and go."""
        every = {*self.there.versions, *self.fresh}
        some = (every, every - set(self.drop), set(self.there.versions) - set(self.drop))
        return any(list(served(text, self.here.model, versions)) != list(now) for versions in some)

    def files(self) -> list[Write]:
        writes = [
            _write(f"{self.here.model}/{number}/{name}", self.here.versions[number].files[name])
            for number, names in self.wrong.items()
            for name in names
        ]
        return writes + self._new_tops()

    def _new_tops(self) -> list[Write]:
        return [
            _write(f"{self.here.model}/{name}", held)
            for name, held in self.here.tops.items()
            if name not in self.there.tops
        ]

    def _changed_tops(self) -> list[Write]:
        return [
            _write(f"{self.here.model}/{name}", held)
            for name, held in self.here.tops.items()
            if name in self.there.tops and not is_same(self.there.tops[name], held)
        ]

    def switch(self) -> list[Write]:
        start = len(f"{self.here.model}/")
        held = {write.name[start:]: write.source for write in self.hold()}
        return self._changed_tops() + self._differing(self._during, lambda name: held.get(name, self._now(name)))

    def settle(self) -> list[Write]:
        return self._differing(self._settled, lambda name: self._during[name].encode())

    def finish(self) -> list[Write]:
        """Also configs that are the same, where versions were removed or repaired: only this makes a server look."""
        again = bool(self.drop) or any(number not in self.fresh for number in self.add)
        return self._differing(self._final, lambda name: None if again else self._settled[name].encode())

    def _differing(self, texts: Mapping[str, str], before: Callable[[str], Source | None]) -> list[Write]:
        """The configs that are not as before, config.pbtxt last."""
        names = sorted(texts, key=lambda name: (name == CONFIG, name))
        return [self._config(name, texts[name]) for name in names if before(name) != texts[name].encode()]

    def _now(self, name: str) -> bytes | None:
        text = self.there.texts.get(name)
        return text.encode() if text is not None else None

    def _config(self, name: str, text: str) -> Write:
        return _text(f"{self.here.model}/{name}", text)

    # What goes

    @property
    def stale_configs(self) -> list[str]:
        names = [f"{self.here.model}/{name}" for name in self.there.texts if name not in self.here.texts]
        return [name for name in names if self.remote.owned(name)]

    def dropped(self) -> Iterator[str]:
        for number in self.drop:
            yield from (f"{self.here.model}/{number}/{name}" for name in self.there.versions[number].files)
        for name in self.there.tops if self.delete else ():
            if name not in self.here.tops and self.remote.owned(f"{self.here.model}/{name}"):
                yield f"{self.here.model}/{name}"

    # What is told

    def change(self) -> ModelChange:
        stages = [self.hold(), self.files(), self.switch(), self.settle(), self.finish()]
        sent = {write.name: write.size_bytes for writes in stages for write in writes}
        config = bool(self.stale_configs or self._new_tops() or self._changed_tops()) or any(
            self._now(name) != text.encode() for name, text in self._final.items()
        )
        drop, add = tuple(sorted(self.drop)), tuple(sorted(self.add))
        then = tuple(sorted(self.digests_then()))
        return ModelChange(self.here.model, add, drop, config, then, size_bytes=sum(sent.values()))

    def digests_then(self) -> dict[int, str]:
        versions = {**self.there.versions, **self.here.versions}
        numbers = {*served(self._final[CONFIG], self.here.model, self.versions_then), *self.needed_then}
        return {number: versions[number].digest for number in sorted(numbers)}

    def says(self) -> Iterator[str]:
        for number in self.kept:
            why = "has objects that Modelwright did not push" if not self._is_ours(number) else "left this repository"
            if number in self.needed_then:
                yield f"{self.here.model}: version {number} stays and is served: a pipeline there needs it"
            elif not self.delete or not self._is_ours(number):
                more = "" if self.delete else "; --delete removes it"
                yield f"{self.here.model}: version {number} {why}: it stays there, and is not served{more}"


def needed_by(sides: Iterable[ModelSide]) -> dict[str, set[int]]:
    """The versions that pipelines need: {model: versions}."""
    found: dict[str, set[int]] = {}
    for side in sides:
        for name, numbers in side.pins.items():
            found.setdefault(name, set()).update(numbers)
    return found


def composing_first(sides: Mapping[str, ModelSide], names: Iterable[str]) -> list[str]:
    """These models and those that they run, as far as they are there, each after those that it runs."""
    return in_load_order(names, lambda name: sorted(other for other in sides[name].runs if other in sides))


def is_same(there: Held | None, here: Held | None) -> bool:
    return there is not None and here is not None and there.sha256 == here.sha256 != ""


def _all(parts: Iterable[Iterable[Write]]) -> tuple[Write, ...]:
    return tuple(write for part in parts for write in part)


def _write(name: str, held: Held) -> Write:
    assert held.file is not None
    return Write(name, held.file, held.sha256, held.size_bytes)


def _text(name: str, text: str) -> Write:
    data = text.encode()
    return Write(name, data, sha256(data), len(data))


def _model_of(name: str) -> str:
    return name.partition("/")[0]


def _is_manifest(name: str) -> bool:
    return name.rpartition("/")[2] == MANIFEST and name.count("/") == 2
