"""The repository as a move is to make it: what is asked for, and what follows for configs, states and other models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from modelwright.config.edit import parameter, served_by, with_field, with_parameter, written_field
from modelwright.config.render import parse
from modelwright.errors import ConfigError, RepositoryError
from modelwright.fsops import read_text
from modelwright.repository import pins as pinning
from modelwright.repository.ledger import ServingState
from modelwright.repository.manifest import Manifest, PublishedTensors
from modelwright.repository.move import Move, numbers_text, served_text
from modelwright.repository.pins import Needed, Pins, needed, pins_of
from modelwright.repository.policy import released, utc_now, with_policy
from modelwright.repository.repository import Change, Repository
from modelwright.triton.layout import CONFIG, PINS, environment_config

# Fields of a config that follow from the version: where two versions differ in them, they cannot be served together.
_SIGNATURE_FIELDS = ("max_batch_size", "input", "output", "batch_input", "batch_output")
_SCHEDULING = "ensemble_scheduling"


def which_versions(repository: Repository, model: str) -> str:
    """The versions that a model has, for a message."""
    live, retired = repository.versions(model), repository.retired(model)
    found = f"in the repository: {_listed(live)}"
    return f"{found}; retired: {_listed(retired)}" if retired else found


def _form(text: str) -> tuple[str | None, str | None]:
    """What runs a model: an ensemble that is kept in several versions is a Python model."""
    return written_field(text, "backend"), written_field(text, "platform")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


@dataclass
class _Model:
    """A model as it is to be."""

    versions: set[int]
    state: ServingState
    published: Mapping[str, str]  # config.pbtxt, and the configs of environments, as they are
    texts: dict[str, str]  # and as they are to be
    served_before: tuple[int, ...]
    leaving: list[int] = field(default_factory=list)
    coming: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Draft:
    """The repository as a move is to make it. Nothing is written."""

    def __init__(self, repository: Repository, now: datetime | None = None) -> None:
        self._repository = repository
        self._ledger = repository.ledger()
        self._now = now or utc_now()
        self._models: dict[str, _Model] = {}
        self.needed = needed(repository)  # as published

    # What a move does

    def state(self, model: str) -> ServingState:
        return self._model(model).state

    def set_state(self, model: str, state: ServingState) -> None:
        self._model(model).state = state

    def touch(self, model: str) -> None:
        self._model(model)

    def leave(self, model: str, versions: Sequence[int]) -> None:
        entry = self._model(model)
        entry.leaving += [number for number in versions if number not in entry.leaving]
        entry.versions -= set(versions)

    def is_unfinished(self, model: str) -> bool:
        """Whether versions leave because a command was killed that let them go."""
        return bool(self._model(model).leaving)

    def come_back(self, model: str, versions: Sequence[int]) -> None:
        """Retired versions come back. Raises RepositoryError for a damaged one."""
        for number in versions:
            damage = self._repository.damage(model, number, retired=True)
            if damage:
                hint = "modelwright fsck says where it can be restored from"
                raise RepositoryError(f"{model}: retired version {number} is damaged: {'; '.join(damage)}", hint)
        entry = self._model(model)
        entry.coming += versions
        entry.versions |= set(versions)
        entry.state = _without(entry.state, versions)

    def withdraw(self, model: str, versions: Iterable[int]) -> None:
        """A build that comes to one of these again does not publish it."""
        entry = self._model(model)
        digests = {
            number: manifest.version_digest for number in versions if (manifest := self._manifest(model, number))
        }
        entry.state = entry.state.model_copy(update={"withdrawn": {**entry.state.withdrawn, **digests}})

    def allow_again(self, model: str, version: int) -> None:
        """A build may publish what was in this version, which was withdrawn and then deleted."""
        entry = self._model(model)
        entry.state = _without(entry.state, [version])
        entry.notes.append(f"version {version} was deleted; builds may publish its content again, under a new number")

    def take_over(self, model: str, version: int) -> None:
        """A pipeline's config gets the steps and the pins of this version of it."""
        entry = self._model(model)
        snapshot = self._snapshot(model, version)
        if snapshot is not None and _form(snapshot) != _form(entry.texts[CONFIG]):
            if entry.texts.keys() != {CONFIG}:
                problem = f"{model}: version {version} was published in another form, with configs of environments"
                raise RepositoryError(problem, f"build it as it was then: modelwright build {model}")
            entry.texts[CONFIG] = snapshot
        for name, text in entry.texts.items():
            if written_field(text, _SCHEDULING) is not None:
                entry.texts[name] = with_field(text, _SCHEDULING, self._scheduling(model, version, snapshot))
            elif snapshot is not None and (own := self._parameter(model, snapshot)) is not None:
                merged = pinning.merged(self._parameter(model, text), own, entry.versions)
                entry.texts[name] = with_parameter(text, PINS, merged)

    def _take_over_newest(self, name: str) -> None:
        """What requests without a version get is another version: a pipeline runs what that one was verified with."""
        newest = max(self._result(name, self.needed.get(name, ()), self._model(name).state).serves, default=None)
        if newest is not None and newest != self.newest_served(name):
            self.take_over(name, newest)

    def newest_served(self, model: str) -> int | None:
        return max(self._model(model).served_before, default=None)

    # What comes of it

    def move(self, what: str, model: str, version: int | None, allow_signature_change: bool) -> Move:
        """The changes, in order. Raises RepositoryError for what cannot be served together."""
        for name in list(self._models):
            self._check_signature(name, allow_signature_change)
            self._take_over_newest(name)
        pins = {name: self._pins(name) for name in self._models}
        after = needed(self._repository, pins)
        self._adjust_composing(pins, after)
        before = self.needed
        first = {
            name: self._result(name, {*before.get(name, {}), *after.get(name, {})}, self._models[name].state)
            for name in self._models
        }
        settled = {name: self._result(name, after.get(name, ()), _settled(first[name].state)) for name in self._models}
        order = sorted(self._models, key=lambda name: (bool(pins[name] if name in pins else self._pins(name)), name))
        changes = {name: change for name in order if (change := self._change(name, first[name]))}
        settling = {name: change for name in order if (change := _edits(name, first[name].texts, settled[name].texts))}
        return Move(
            what=what,
            model=model,
            version=version,
            changes=tuple(changes.values()),
            states={name: first[name].state for name in order if first[name].state != self._ledger.state(name)},
            serves={name: first[name].serves for name in changes},
            says=tuple(line for name in order for line in self._says(name, first[name], settled[name])),
            settling=tuple(settling.values()),
            settled_states={name: settled[name].state for name in order},
            settled_serves={name: settled[name].serves for name in settling},
            undoing=tuple(self._undo(name, change) for name, change in reversed(changes.items())),
            undone_states={name: self._ledger.state(name) for name in order},
            undone_serves={name: self._models[name].served_before for name in changes},
        )

    def _adjust_composing(self, pins: Mapping[str, Pins], after: Needed) -> None:
        """The models that the touched pipelines run, or ran until now: they serve what is needed."""
        runs = {name for own in pins.values() for name in own}
        runs |= {name for pipeline in pins for name in pinning.published_pins(self._repository, pipeline)}
        for name in sorted(runs):
            if name not in self._repository.models() and not self._repository.retired(name):
                raise RepositoryError(f"{name}: is not in {self._repository.root.name}, and a pipeline needs it")
            wanted = after.get(name, {})
            missing = [number for number in wanted if number not in self._model(name).versions]
            for number in missing:
                if number not in self._repository.retired(name):
                    pipelines = " and ".join(wanted[number])
                    hint = f"{which_versions(self._repository, name)}; build the pipeline again, or pull it"
                    raise RepositoryError(f"{name}: version {number}, which {pipelines} needs, is gone", hint)
            self.come_back(name, missing)
            self._check_together(name, wanted)
            dropped = [number for number in self.needed.get(name, {}) if number not in wanted]
            self.set_state(name, released(self.state(name), dropped, self._now))

    def _result(self, name: str, needed_versions: Iterable[int], state: ServingState) -> _Result:
        entry, numbers = self._model(name), list(needed_versions)
        texts, new_state = {}, state
        for file, text in entry.texts.items():
            texts[file], new_state = with_policy(
                text, name, entry.versions, state, numbers, self._now, prebuilt=self._is_prebuilt(name)
            )
        return _Result(texts, new_state, tuple(served_by(texts[CONFIG], name, entry.versions)))

    def _change(self, name: str, result: _Result) -> Change | None:
        entry = self._model(name)
        edits = _edits(name, entry.published, result.texts)
        if not edits and not entry.leaving and not entry.coming:
            return None
        return replace(edits or Change(name), retire=tuple(entry.leaving), restore=tuple(entry.coming))

    def _undo(self, name: str, change: Change) -> Change:
        before = self._model(name).published
        tops = {file: before[file].encode() for file in change.top_files}
        return Change(name, top_files=tops, retire=change.restore, restore=change.retire)

    def _says(self, name: str, first: _Result, settled: _Result) -> Iterable[str]:
        entry = self._model(name)
        for note in entry.notes:
            yield f"{name}: {note}"
        for number in entry.coming:
            yield f"{name}: version {number} comes back"
        for number in entry.leaving:
            yield f"{name}: version {number} leaves the repository and is kept as retired"
        if first.serves != entry.served_before:
            yield f"{name} {served_text(first.serves)}, before: {numbers_text(entry.served_before)}"
        elif first.texts != entry.published:
            yield f"{name}: config.pbtxt changes; it {served_text(first.serves)} as before"
        if settled.serves != first.serves:
            yield f"{name} {served_text(settled.serves)} once the servers have followed"

    # What it knows of each model

    def _model(self, name: str) -> _Model:
        if name not in self._models:
            versions = set(self._repository.versions(name))
            texts = self._read_texts(name)
            try:
                served = tuple(served_by(texts[CONFIG], name, versions))
            except ConfigError as error:
                raise RepositoryError(error.message, f"build it again: modelwright build {name}") from None
            self._models[name] = _Model(versions, self._ledger.state(name), texts, dict(texts), served)
            self._finish(name)
        return self._models[name]

    def _finish(self, name: str) -> None:
        """Let the versions go that a killed command withdrew: the ledger knows of it before anything is moved."""
        entry = self._models[name]
        kept = {*self.needed.get(name, ()), entry.state.promoted}
        late = sorted(number for number in entry.versions if number in entry.state.withdrawn and number not in kept)
        if late and len(late) < len(entry.versions):
            self.leave(name, late)
            if entry.state.promoted is None:
                self.take_over(name, max(entry.versions))

    def _read_texts(self, name: str) -> dict[str, str]:
        """config.pbtxt and the configs of environments. Raises RepositoryError where there is no config.pbtxt."""
        folder = self._repository.root / name
        files = [CONFIG, *(environment_config(item) for item in self._repository.environments(name))]
        try:
            return {file: read_text(folder / file) for file in files}
        except (OSError, UnicodeDecodeError) as error:
            hint = f"build it again: modelwright build {name}"
            raise RepositoryError(f"{folder / CONFIG}: cannot be read: {error}", hint) from None

    def _manifest(self, name: str, version: int) -> Manifest | None:
        if version in self._repository.versions(name):
            return self._repository.manifest(name, version)
        return self._repository.retired_manifest(name, version)

    def _is_prebuilt(self, name: str) -> bool:
        newest = self._repository.latest(name)
        return newest is not None and newest[1].made.prebuilt

    def _snapshot(self, name: str, version: int) -> str | None:
        """The config as it was published with this version; None for a version of an older Modelwright."""
        path = pinning.folder_of(self._repository, name, version) / CONFIG
        return read_text(path) if path.is_file() else None

    def _scheduling(self, name: str, version: int, snapshot: str | None) -> str:
        """The field `ensemble_scheduling` of a pipeline's version, with its pins."""
        if snapshot is not None and (written := written_field(snapshot, _SCHEDULING)) is not None:
            return written
        return pinning.scheduling(self._repository, name, version)

    def _pins(self, name: str) -> Pins:
        entry = self._model(name)
        if not pinning.has_pins(entry.texts[CONFIG]):
            return {}
        result = self._result(name, self.needed.get(name, ()), entry.state)
        return pins_of(parse(result.texts[CONFIG], f"{name}/{CONFIG}"), result.serves)

    # What cannot be

    def _check_signature(self, name: str, allowed: bool) -> None:
        """Clients see the tensors of the newest version that is served. Raises RepositoryError where these change."""
        entry = self._model(name)
        if not entry.coming and not entry.leaving and entry.state == self._ledger.state(name):
            return
        result = self._result(name, self.needed.get(name, ()), entry.state)
        before, after = max(entry.served_before, default=None), max(result.serves, default=None)
        if before is None or after is None or before == after:
            return
        old, new = self._manifest(name, before), self._manifest(name, after)
        if old is None or new is None or old.tensors == new.tensors:
            return
        what = f"{name}: version {after} has other tensors than version {before}, which is served"
        if not allowed:
            hint = "clients may depend on them; if they do not, add --allow-signature-change"
            raise RepositoryError(f"{what}: {'; '.join(tensor_differences(old.tensors, new.tensors))}", hint)
        snapshot = self._snapshot(name, after)
        if snapshot is None:
            hint = f"it is of an older Modelwright, which kept no config with it: modelwright build {name}"
            raise RepositoryError(f"{what}, and its config is not known", hint)
        for file, text in entry.texts.items():
            for part in _SIGNATURE_FIELDS:
                text = with_field(text, part, written_field(snapshot, part))
            entry.texts[file] = text

    def _check_together(self, name: str, wanted: Mapping[int, Sequence[str]]) -> None:
        """Versions that are served together share a config. Raises RepositoryError where their tensors differ."""
        newest = max(served_by(self._model(name).texts[CONFIG], name, self._model(name).versions), default=None)
        base = self._manifest(name, newest) if newest is not None else None
        for number, pipelines in wanted.items():
            manifest = self._manifest(name, number)
            if base is not None and manifest is not None and manifest.tensors != base.tensors:
                found = "; ".join(tensor_differences(base.tensors, manifest.tensors))
                hint = f"one config serves both: roll {name} back, too, or give the new one a name of its own"
                raise RepositoryError(
                    f"{name}: {' and '.join(pipelines)} needs version {number}, whose tensors differ from those of "
                    f"version {newest}, which is served: {found}",
                    hint,
                )

    @staticmethod
    def _parameter(name: str, text: str) -> str | None:
        return parameter(parse(text, f"{name}/{CONFIG}"), PINS)


@dataclass(frozen=True)
class _Result:
    """A model's configs, its state, and the versions that are served with them, highest first."""

    texts: Mapping[str, str]
    state: ServingState
    serves: tuple[int, ...]


def _without(state: ServingState, versions: Sequence[int]) -> ServingState:
    """The state in which these versions are not withdrawn."""
    kept = {number: digest for number, digest in state.withdrawn.items() if number not in versions}
    return state.model_copy(update={"withdrawn": kept})


def _settled(state: ServingState) -> ServingState:
    return state.model_copy(update={"released": {}})


def _edits(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> Change | None:
    changed = {file: after[file].encode() for file in after if after[file] != before[file]}
    return Change(name, top_files=changed) if changed else None


def tensor_differences(old: PublishedTensors, new: PublishedTensors) -> list[str]:
    """How the tensors of two versions differ, a line each: `output logits: FP32 [10] → FP32 [12]`."""
    found = []
    if old.batched != new.batched:
        found.append("with a batch dimension" if new.batched else "without a batch dimension")
    for side, before, after in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        was = {item.name: f"{item.dtype} {list(item.dims)}" for item in before}
        now = {item.name: f"{item.dtype} {list(item.dims)}" for item in after}
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                found.append(f"{side} {name}: {was.get(name, 'none')} → {now.get(name, 'none')}")
    return found or ["the order of tensors"]
