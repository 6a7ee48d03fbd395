"""Commands that are killed at any moment, and what the next one and a server then find: `python -m benchmarks chaos`.

What must hold is in `tests/repository/chaos.py`. Each episode is a project of its own and begins with a number, by
which it can be made again: the kills at a file operation then fall on the same ones.
"""

from __future__ import annotations

import errno
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.options import Options
from benchmarks.table import Section
from modelwright.repository.pins import pins_of
from modelwright.repository.versions import published_config
from modelwright.server.session import serve
from modelwright.triton.client import connect
from tests.conftest import new_sandbox
from tests.repository.chaos import (
    MODELS,
    OFTEN,
    BrokenError,
    Strike,
    World,
    choose,
    finish,
    strike,
    struck,
    without_server,
)

KILLS = 300
EPISODES = 10
_FULL = 6  # points at which the disk is full, for each command


@dataclass
class Tally:
    kills: Counter[str] = field(default_factory=Counter)
    by_time: Counter[str] = field(default_factory=Counter)
    visible: Counter[str] = field(default_factory=Counter)
    ended: int = 0  # before they could be killed
    full: Counter[str] = field(default_factory=Counter)
    versions: int = 0  # that were checked, byte for byte, after each kill
    served: int = 0  # versions that a server answered with

    def add(self, strike: Strike) -> None:
        if not strike.killed:
            self.ended += 1
            return
        self.kills[strike.action.what] += 1
        self.by_time[strike.action.what] += strike.by_time
        self.visible[strike.action.what] += strike.visible


def measure(options: Options) -> list[Section]:
    kills, episodes = (10, 1) if options.quick else (KILLS, EPISODES)
    tally = Tally()
    for number in range(episodes):
        episode(number, kills // episodes, tally)
    return sections(tally, episodes)


def episode(number: int, kills: int, tally: Tally) -> None:
    """Raises RuntimeError with the number of the episode where something does not hold."""
    rng = random.Random(number)
    with tempfile.TemporaryDirectory(prefix="modelwright-chaos-") as folder, _prepared(Path(folder)) as world:
        try:
            before = sum(tally.kills.values())
            while sum(tally.kills.values()) < before + kills:
                tally.add(struck(world, rng, Path(folder) / "rehearsal"))
                tally.versions += len(world.known)
            for what in dict.fromkeys(OFTEN):
                tally.full[what] += _full_disk(world, rng, Path(folder), what)
            tally.served += _serve(world)
        except (BrokenError, RuntimeError) as error:
            raise RuntimeError(f"episode {number}, after {sum(tally.kills.values())} kills: {error}") from error


@contextmanager
def _prepared(folder: Path) -> Iterator[World]:
    with without_server():
        world = World.new(new_sandbox(folder / "project"))
        world.build()
        world.given("push", ()).run()
        world.learn()
        world.check()
        yield world


def _full_disk(world: World, rng: random.Random, folder: Path, what: str) -> int:
    """The disk is full from some operation on, or read-only from the first on; then there is room again."""
    action, rehearsal = choose(world, rng, folder / "rehearsal", (what,))
    for number in range(_FULL):
        copy = world.copy(folder / "copy")
        again = copy.given(action.what, action.arguments)
        point = rng.randint(1, rehearsal.ended.operations)
        how = {"fail_at": point, "error": errno.ENOSPC} if number else {"fail_at": 1, "error": errno.EROFS}
        strike(copy, again, rehearsal, **how)
        shutil.rmtree(copy.sandbox.root)
    world.may_go = world.going(action)
    finish(world, action, rehearsal)
    return _FULL


def _serve(world: World) -> int:
    """A server loads all that it finds, and each version answers by its own weights."""
    project = world.project.config
    log = project.logs / "chaos.log"
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    count = 0
    with serve(project.server, project.target, project.repository, log=log, say=lambda _: None) as served:
        if served.refused:
            raise RuntimeError(f"the server refuses {served.refused}")
        ready = served.ready()
        if {model for model, _ in ready} != set(MODELS):
            raise RuntimeError(f"the server serves {ready}")
        with connect(served.http) as client:
            for model, version in ready:
                answer = client.infer(model, {"x": x}, str(version))["y"]
                if not np.allclose(answer, x * _factor(world, model, version), rtol=1e-6):
                    raise RuntimeError(f"{model} {version} answers {answer}")
                count += 1
    return count


def _factor(world: World, model: str, version: int) -> np.float32:
    """What a version multiplies by; a pipeline by what the versions do that it runs."""
    if model != MODELS[-1]:
        graph = onnx.load(str(world.repository.folder(model, version) / "model.onnx")).graph
        return np.float32(numpy_helper.to_array(graph.initializer[0])[0])
    pins = pins_of(published_config(world.repository, model), [version])
    first, second = (_factor(world, name, min(pins[name])) for name in MODELS[:2])
    return first * second


def sections(tally: Tally, episodes: int) -> list[Section]:
    commands = list(dict.fromkeys(OFTEN))
    return [
        Section(
            "chaos: commands that are killed",
            f"{sum(tally.kills.values())} kills in {episodes} projects. After each: every version that an ended "
            "command made known is live or retired, byte for byte; no other is half there; no number stands for "
            "another version; the journal is whole; the linter finds nothing. Then the same command again does what it "
            "would have done, and `fsck` finds nothing.",
            ["command", "kills", "at a file operation", "at a time", "had an effect", "full or read-only disk"],
            [_row(tally, command) for command in commands],
            [
                f"{tally.versions:,} times a version was compared byte for byte: 0 lost, 0 changed, 0 half there.",
                f"{episodes} starts of the server, on what the last kill left and the next command did: {tally.served} "
                "versions loaded, and each answers by its own weights.",
                f"{tally.ended} commands ended before they were killed, and do not count.",
            ],
        )
    ]


def _row(tally: Tally, command: str) -> Sequence[str]:
    kills = tally.kills[command]
    by_time = tally.by_time[command]
    name = "fsck --repair" if command == "fsck" else command
    return [
        f"`{name}`",
        f"{kills}",
        f"{kills - by_time}",
        f"{by_time}",
        f"{tally.visible[command]}",
        f"{tally.full[command]}",
    ]
