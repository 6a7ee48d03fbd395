"""At every moment of a push a server can read what is there, and start; wherever a push ends, the next one completes it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from modelwright.remotes.index import INDEX
from modelwright.remotes.lock import LOCK
from modelwright.remotes.place import place_of
from modelwright.remotes.store import Entry, FolderStore, Source
from tests.remotes.repositories import MadeRepository, content, served_there, unready
from tests.remotes.scenarios import SCENARIOS, Scenario, prepare, push

_LEDGER = "modelwright.json"
Result = TypeVar("Result")


class _KilledError(BaseException):
    pass


class _Watched(FolderStore):
    """A folder that is looked at after every change, as a server would; or one where everything ends at an operation."""

    def __init__(self, folder: Path, kill_at: int = 0, *, done: bool = False) -> None:
        super().__init__(place_of(str(folder)))
        self.folder, self.kill_at, self.done, self.count = folder, kill_at, done, 0
        self.seen: list[dict[str, list[int]]] = []
        self._one = threading.RLock()  # what is looked at must not change meanwhile

    def _do(self, change: Callable[[], Result]) -> Result:
        with self._one:
            self.count += 1
            if self.kill_at and (self.count > self.kill_at or (self.count == self.kill_at and not self.done)):
                raise _KilledError
            result = change()
            if self.count == self.kill_at:
                raise _KilledError
            if not self.kill_at:
                assert problems(self.folder) == []
                self.seen.append(served(self.folder))
            return result

    def put(self, name: str, source: Source, sha256: str = "") -> Entry:
        return self._do(lambda: super(_Watched, self).put(name, source, sha256))

    def create(self, name: str, data: bytes) -> bool:
        return self._do(lambda: super(_Watched, self).create(name, data))

    def delete(self, name: str) -> None:
        self._do(lambda: super(_Watched, self).delete(name))


def problems(folder: Path) -> list[str]:
    return unready(content(folder), lambda name: (folder / name).read_bytes())


def served(folder: Path) -> dict[str, list[int]]:
    return served_there(content(folder), lambda name: (folder / name).read_bytes())


def is_a_copy(there: Path, made: MadeRepository) -> bool:
    """Whether a remote holds what the repository holds, and nothing more."""
    ours = {name: digest for name, digest in content(made.repository.root).items() if name != _LEDGER}
    theirs = {name: digest for name, digest in content(there).items() if name != INDEX}
    return ours == theirs


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_server_can_read_every_state_of_a_push(scenario: Scenario, made: MadeRepository, tmp_path: Path) -> None:
    there = tmp_path / "there"
    prepare(scenario, made, FolderStore(place_of(str(there))))
    before = served(there) if there.exists() else {}
    store = _Watched(there)
    push(store, made, delete=scenario.delete)
    after = served(there)
    assert after == served(made.repository.root)
    for model in before.keys() & after.keys():  # what stays is served all the time
        assert all(seen.get(model) for seen in store.seen), model
    if scenario.delete or not scenario.after:
        assert is_a_copy(there, made)
    assert push(store, made, delete=scenario.delete) == []


@pytest.mark.parametrize(
    ("name", "done"),
    [
        ("a pipeline moves", False),
        ("a pipeline moves", True),
        ("a version is rolled back", True),
        ("a model leaves", False),
    ],
)
def test_a_push_that_ends_anywhere_is_completed_by_the_next(
    name: str, done: bool, made: MadeRepository, tmp_path: Path
) -> None:
    """benchmarks/remotes.py does the same with a real process and a real S3 server, for every scenario."""
    scenario = SCENARIOS[name]
    start = tmp_path / "start"
    prepare(scenario, made, FolderStore(place_of(str(start))))
    start.mkdir(exist_ok=True)
    complete = tmp_path / "complete"
    shutil.copytree(start, complete)
    whole = _Watched(complete)
    push(whole, made, delete=scenario.delete)
    for kill_at in range(1, whole.count + 1):
        there = tmp_path / f"killed-{kill_at}"
        shutil.copytree(start, there)
        with pytest.raises(_KilledError):
            push(_Watched(there, kill_at, done=done), made, delete=scenario.delete)
        assert problems(there) == []
        (there / LOCK).unlink(missing_ok=True)  # as the next push does that finds the process ended
        push(FolderStore(place_of(str(there))), made, delete=scenario.delete)
        assert served(there) == served(complete)
        assert {**content(there), INDEX: ""} == {**content(complete), INDEX: ""}
        index = json.loads((there / INDEX).read_bytes())["objects"]
        assert {name for name, item in index.items() if item.get("stamp")} == content(there).keys() - {INDEX}
        shutil.rmtree(there)
