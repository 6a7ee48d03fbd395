"""Commands that die, or meet a full or a read-only disk, and what the next one finds. `benchmarks/chaos.py` does more."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelwright.build.build import LOCK
from modelwright.digest import list_tree
from modelwright.fsops import locked
from tests.conftest import Sandbox
from tests.repository.chaos import BrokenError, World, choose, strike, without_server
from tests.repository.killing import in_child

COMMANDS = ("build", "push", "rollback", "promote", "retire", "restore", "gc", "fsck")
POINTS = 2  # of each command; the benchmark has hundreds


@pytest.fixture(scope="module", autouse=True)
def _without_server() -> Iterator[None]:
    with without_server():
        yield


@pytest.fixture(scope="module")
def _operated(sandbox_factory: Callable[[], Sandbox]) -> World:
    """Three versions of a pipeline, the models that it runs, a remote with all of them, and one version retired."""
    world = World.new(sandbox_factory())
    rng = random.Random(1)
    for _ in range(3):
        world.change_builders(rng)
        world.build()
    world.given("retire", ("both", 1)).run()
    world.given("push", ()).run()
    world.learn()
    world.check()
    return world


@pytest.fixture
def world(_operated: World, tmp_path: Path) -> World:
    return _operated.copy(tmp_path.resolve() / "world")


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_that_is_killed_loses_nothing_and_is_done_by_the_same_command_again(
    world: World, tmp_path: Path, what: str
) -> None:
    rng = random.Random(what)
    action, rehearsal = choose(world, rng, tmp_path / "rehearsal", (what,))
    most = rehearsal.ended.operations
    assert most > POINTS
    points = sorted(rng.sample(range(1, most + 1), POINTS))
    for point in points:
        struck = world.copy(tmp_path / f"{point}")
        again = struck.given(action.what, action.arguments)
        assert strike(struck, again, rehearsal, kill_at=point).killed


@pytest.mark.parametrize("what", COMMANDS)
def test_a_full_disk_loses_nothing(world: World, tmp_path: Path, what: str) -> None:
    rng = random.Random(what)
    action, rehearsal = choose(world, rng, tmp_path / "rehearsal", (what,))
    point = rng.randint(1, rehearsal.ended.operations)
    found = strike(world, action, rehearsal, fail_at=point, error=errno.ENOSPC)
    assert found.error == "" or os.strerror(errno.ENOSPC) in found.error


def test_a_read_only_disk_stays_as_it_is(world: World) -> None:
    before = {path: path.read_bytes() for path in list_tree(world.sandbox.root / "model_repository").values()}
    arguments = {"retire": ("both", 2), "restore": ("both", 1), "rollback": ("both", 2), "promote": ("both", 2)}
    for what in COMMANDS:
        action = world.given(what, arguments.get(what, (1,) if what == "gc" else ()))
        ended = in_child(action.run, fail_at=1, error=errno.EROFS)
        assert not ended.bug
        assert os.strerror(errno.EROFS) in ended.error or what in ("build", "push", "fsck")  # nothing to do for them
    after = {path: path.read_bytes() for path in list_tree(world.sandbox.root / "model_repository").values()}
    assert after == before
    world.check()


def test_a_version_that_was_lost_would_be_noticed(world: World) -> None:
    path = world.repository.folder("both", 2) / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BrokenError, match=r"\('both', 2\) is another one now"):
        world.check()


def test_of_two_operators_one_waits(world: World) -> None:
    started, go_on = os.pipe(), os.pipe()
    first = os.fork()
    if first == 0:
        with locked(world.project.config.state / LOCK, "a long build", wait=False):
            os.write(started[1], b"x")
            os.read(go_on[0], 1)
        os._exit(0)
    os.read(started[0], 1)
    refused = in_child(lambda: world.project.retire("both", 2))
    assert f"build.lock is held by a long build (process {first})" in refused.error

    def retire_and_wait() -> None:
        world.project.retire("both", 2, wait=True, say=lambda holder: os.write(go_on[1], b"x"))

    assert in_child(retire_and_wait).done
    os.waitpid(first, 0)
    for descriptor in (*started, *go_on):
        os.close(descriptor)
    assert world.repository.retired("both") == [1, 2]
