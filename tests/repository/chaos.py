"""A project that is operated on by processes that die at any moment, and what must hold after each of them.

    world = World(sandbox)
    with world.without_server():
        world.build()
        ended, action = world.strike(rng)      a command that is killed, and the same command again
        world.check()

`known` are the versions that a command which ended made known, with the digest of every file. After any kill each of
them is live or retired, byte for byte, and every other version that is there is complete.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from modelwright.api import Project
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import ModelwrightError
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.verified import Verified
from modelwright.repository import pins, policy
from modelwright.repository.repository import Repository
from modelwright.repository.versions import published_config
from modelwright.triton.layout import LEDGER
from modelwright.triton.policy import selected
from tests.conftest import ENSEMBLE_YAML, Sandbox, doubling_onnx
from tests.repository.killing import Ended, in_child

MODELS = ("doubled", "plus_one", "both")  # the last one is a pipeline of the others

Version = tuple[str, int]
Files = dict[str, str]  # the digest of each file
State = dict[str, tuple[list[str], list[str], list[str]]]


@dataclass(frozen=True)
class Action:
    """A command with its arguments."""

    what: str
    arguments: tuple[Any, ...]
    run: Callable[[], object]

    def __str__(self) -> str:
        return " ".join(map(str, (self.what, *self.arguments)))


class BrokenError(AssertionError):
    """Something that must hold does not."""


@dataclass
class World:
    sandbox: Sandbox
    known: dict[Version, Files] = field(default_factory=dict)
    digests: dict[Version, str] = field(default_factory=dict)  # what each number ever stood for
    may_go: set[Version] = field(default_factory=set)  # what a killed gc was about to delete
    damaged: set[Version] = field(default_factory=set)  # until they are repaired
    builds: int = 0

    @classmethod
    def new(cls, sandbox: Sandbox) -> World:
        for model in MODELS[:2]:
            sandbox.onnx_builder(model)
        sandbox.ensemble_builder(MODELS[2], ENSEMBLE_YAML)
        return cls(sandbox)

    def copy(self, root: Path) -> World:
        """The same in another folder."""
        shutil.copytree(self.sandbox.root, root, symlinks=True)
        copied = World(Sandbox(root), dict(self.known), dict(self.digests), builds=self.builds)
        copied.damaged = set(self.damaged)
        return copied

    @property
    def project(self) -> Project:
        return Project(self.sandbox.project)

    @property
    def repository(self) -> Repository:
        return self.sandbox.repository

    # --- what is done -------------------------------------------------------------------------------------------------

    def change_builders(self, rng: random.Random) -> None:
        """Other weights for one of the models, or both: the next build publishes them, and the pipeline."""
        self.builds += 1
        for model in rng.choice((MODELS[:1], MODELS[1:2], MODELS[:2])):
            folder = self.sandbox.root / "builders" / model
            doubling_onnx(folder / "model.onnx", 2 + self.builds / 1000)

    def action(self, what: str, rng: random.Random) -> Action | None:
        """A command with arguments that fit what is there; None where nothing does."""
        repository = self.repository
        model = rng.choice(MODELS)
        live, retired = repository.versions(model), repository.retired(model)
        arguments: tuple[Any, ...]
        if what in ("build", "push", "fsck"):
            return self.given(what, ())
        if what == "gc":
            arguments = (rng.choice((1, 2)),)
        elif what == "rollback":
            older = [number for number in {*live, *retired} if number < max(live, default=0)]
            if not older:
                return None
            arguments = (model, rng.choice(older))
        elif what == "promote":
            arguments = (model, rng.choice([*live, None]))
        else:
            choices = retired if what == "restore" else live
            if not choices:
                return None
            arguments = (model, rng.choice(choices))
        return self.given(what, arguments)

    def given(self, what: str, arguments: tuple[Any, ...]) -> Action:
        if what == "build":
            return Action(what, arguments, self.build)
        if what == "push":
            return Action(what, arguments, partial(self.project.push, f"file://{self.remote}", settle_s=0, delete=True))
        if what == "fsck":
            return Action(what, arguments, partial(self.project.fsck, repair=True, why="chaos"))
        return Action(what, arguments, partial(getattr(self.project, what), *arguments, why="chaos"))

    def build(self) -> None:
        for outcome in self.sandbox.build().values():
            if outcome.error:
                raise outcome.error

    @property
    def remote(self) -> Path:
        """Where `push` brings the repository."""
        return self.sandbox.root / "remote"

    def harm(self, rng: random.Random) -> None:
        """Flip a bit of a version, which `fsck` then repairs."""
        version = rng.choice(sorted(self.known))
        folder, files = self.present()[version]
        path = folder / rng.choice(sorted(name for name in files if (folder / name).stat().st_size))
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        self.damaged.add(version)

    def going(self, action: Action, times: int = 1) -> set[Version]:
        """The versions that a gc deletes; that it deletes when it is given twice, since it deletes what it retired."""
        if action.what != "gc":
            return set()
        plan = self.project.gc(*action.arguments, dry_run=True)
        repository = self.repository
        found = {(item.model, item.version) for item in plan.deleted}
        if times > 1:
            found |= {(item.model, item.version) for item in plan.retired}
            found |= {(model, number) for model in MODELS for number in repository.retired(model)}
        return found

    # --- what must hold -----------------------------------------------------------------------------------------------

    def present(self) -> dict[Version, tuple[Path, Files]]:
        """Every version, live or retired."""
        repository = self.repository
        found = {}
        for model in {*repository.models(), *repository.retired_models()}:
            for folders, numbers in (
                (repository.retired_folder, repository.retired(model)),
                (repository.folder, repository.versions(model)),
            ):
                for number in numbers:
                    folder = folders(model, number)
                    files = {name: sha256_file(path) for name, path in list_tree(folder).items()}
                    found[model, number] = (folder, files)
        return found

    def state(self) -> State:
        """What each model has, serves and keeps as retired, by the versions' digests: numbers may differ."""
        repository = self.repository
        found = {}
        for model in MODELS:
            live = {number: self._digest(model, number) for number in repository.versions(model)}
            retired = [self._digest(model, number) for number in repository.retired(model)]
            found[model] = (sorted(live.values()), sorted(live[number] for number in self._served(model)), retired)
        return found

    def _digest(self, model: str, number: int) -> str:
        if (known := self.digests.get((model, number))) is not None:  # its manifest may be damaged
            return known
        repository = self.repository
        live = number in repository.versions(model)
        manifest = repository.manifest(model, number) if live else repository.retired_manifest(model, number)
        if manifest is None:
            raise BrokenError(f"{model} {number} has no manifest")
        return manifest.version_digest

    def learn(self) -> None:
        """A command has ended: what is there now is known."""
        self.known = {version: files for version, (_, files) in self.present().items()}
        self.may_go = set()

    def check(self) -> None:
        """Raises BrokenError."""
        repository, present = self.repository, self.present()
        for version, files in self.known.items():
            if version not in present and version not in self.may_go:
                raise BrokenError(f"{version} is lost")
            if version in present and present[version][1] != files and version not in self.damaged:
                raise BrokenError(f"{version} is another one now")
        highest = repository.ledger().versions
        for model, number in present.keys() - self.damaged:
            live = number in repository.versions(model)
            damage = repository.damage(model, number, retired=not live)
            if damage:
                raise BrokenError(f"{model} {number} is half there: {damage}")
            manifest = repository.manifest(model, number) if live else repository.retired_manifest(model, number)
            assert manifest is not None
            if self.digests.setdefault((model, number), manifest.version_digest) != manifest.version_digest:
                raise BrokenError(f"{model}: number {number} was used twice")
            if highest.get(model, 0) < number:
                raise BrokenError(f"{model}: the ledger does not know number {number}")
        if breaks := repository.journal.check():
            raise BrokenError(f"the journal: {breaks}")
        if not self.damaged:
            self._check_served()
        self._check_remote()

    def _served(self, model: str) -> list[int]:
        """What a server would serve."""
        config = published_config(self.repository, model)
        if config is None:
            raise BrokenError(f"{model} has no config.pbtxt")
        versions = self.repository.versions(model)
        served = selected(config.version_policy, versions)
        if not served or set(config.version_policy.specific.versions) - set(versions):
            raise BrokenError(f"{model} serves {served} of {versions}: {config.version_policy}")
        return served

    def _check_served(self) -> None:
        repository = self.repository
        if strange := {path.name for path in repository.root.iterdir()} - {*MODELS, LEDGER}:
            raise BrokenError(f"in the repository's root: {strange}")
        served = {model: self._served(model) for model in repository.models()}
        for model, numbers in pins.needed(repository).items():
            if missing := set(numbers) - set(served[model]):
                raise BrokenError(f"{model} does not serve {missing}, which pipelines need")
        report = self.project.lint()
        if report.errors:
            raise BrokenError(f"lint: {report.errors[0].where}: {report.errors[0].message}")

    def _check_remote(self) -> None:
        """What a server would find there."""
        remote = Repository(self.remote, self.remote)
        for model in MODELS:
            config = published_config(remote, model)
            for number in selected(config.version_policy, remote.versions(model)) if config is not None else ():
                if damage := remote.damage(model, number):
                    raise BrokenError(f"{model} {number} is half at the remote, and served: {damage}")


@contextlib.contextmanager
def without_server() -> Iterator[None]:
    """Pipelines are verified in the real server, which takes seconds: that is left out."""

    def verified(context: Any, out: Path) -> Verified:
        (out / "golden.npz").write_bytes(b"not looked at")
        return Verified(compared_with=ComparedWith.SOURCE)

    with (
        mock.patch("modelwright.steps.verify.run_served", verified),
        mock.patch.object(policy, "SETTLE_S", 3600),  # so that no result depends on how fast this machine is
    ):
        yield


@dataclass(frozen=True)
class Strike:
    """A command that was killed, and the same again, which was not. `visible`: whether the killed one had an effect."""

    action: Action
    killed: bool
    visible: bool
    error: str = ""
    by_time: bool = False


@dataclass(frozen=True)
class Rehearsal:
    """A command on a copy: how many file operations it has, how long it takes, and what it comes to."""

    ended: Ended
    duration_s: float
    state: State


def rehearse(world: World, action: Action, folder: Path) -> Rehearsal:
    """Raises BrokenError where it fails by anything but a refusal."""
    copy = world.copy(folder)
    copy.may_go = copy.going(action)
    started = time.monotonic()
    ended = in_child(copy.given(action.what, action.arguments).run)
    duration_s = time.monotonic() - started
    if ended.bug:
        raise BrokenError(f"{action}: {ended.bug}")
    if ended.done:
        copy.damaged = set()
        copy.check()
    state = copy.state() if ended.done else {}
    shutil.rmtree(folder)
    return Rehearsal(ended, duration_s, state)


def _different(found: State, wanted: State) -> str:
    """Live, served and retired versions of the models that are not as they should be."""
    return "; ".join(
        f"{model} is {_short(found[model])}, should be {_short(wanted[model])}"
        for model in MODELS
        if found[model] != wanted[model]
    )


def _short(state: tuple[list[str], list[str], list[str]]) -> str:
    return " | ".join(" ".join(digest[:4] for digest in part) for part in state)


def strike(world: World, action: Action, rehearsal: Rehearsal, **how: Any) -> Strike:
    """Kill a command; look; give the same command again: then all is as if it had not been killed.

    Raises BrokenError where it is not.
    """
    before = world.state()
    world.may_go, twice = world.going(action), world.going(action, times=2)
    killed = in_child(action.run, **how)
    try:
        if killed.bug:
            raise BrokenError(killed.bug)
        world.check()
        visible = world.state() != before
        world.may_go = twice
        finish(world, action, rehearsal)
    except (BrokenError, ModelwrightError) as error:
        raise BrokenError(f"{action} {how}: {error}") from error
    return Strike(action, killed.killed, visible, killed.error, "kill_after_s" in how)


def finish(world: World, action: Action, rehearsal: Rehearsal) -> None:
    """The command once more, which now ends: everything is well, and as it was rehearsed. Raises BrokenError."""
    ended = in_child(action.run)
    if ended.bug:
        raise BrokenError(ended.bug)
    world.damaged = set()
    world.check()
    if action.what != "gc" and (different := _different(world.state(), rehearsal.state)):
        raise BrokenError(f"the same command again: {different}")
    if damages := world.project.fsck().damages:
        raise BrokenError(f"fsck: {damages[0].place}: {damages[0].problem}")
    world.learn()


# In a long run builds come more often, since every other command takes away what they bring.
OFTEN = ("build", "build", "build", "push", "rollback", "promote", "retire", "restore", "gc", "fsck")


def choose(world: World, rng: random.Random, folder: Path, among: Sequence[str] = OFTEN) -> tuple[Action, Rehearsal]:
    """A command that is not refused, ready to be killed: the builders have changed, or a version is damaged."""
    for _ in range(100):
        what = rng.choice(among)
        if what == "build":
            world.change_builders(rng)
        if what == "fsck":
            world.harm(rng)
        action = world.action(what, rng)
        if action is None:
            continue
        rehearsal = rehearse(world, action, folder)
        if rehearsal.ended.done:
            return action, rehearsal
        if what == "build":  # a version is promoted that a pipeline then could not run
            for model in MODELS:
                in_child(world.given("promote", (model, None)).run)
            world.learn()
    raise BrokenError(f"none of {', '.join(among)} can be done any more")


def struck(world: World, rng: random.Random, folder: Path, among: Sequence[str] = OFTEN) -> Strike:
    """One of these commands is killed: half of them at a file operation, half of them at a time."""
    action, rehearsal = choose(world, rng, folder, among)
    if rng.random() < 0.5:
        how: dict[str, Any] = {"kill_at": rng.randint(1, max(1, rehearsal.ended.operations))}
    else:
        how = {"kill_after_s": rng.uniform(0, rehearsal.duration_s)}
    return strike(world, action, rehearsal, **how)
