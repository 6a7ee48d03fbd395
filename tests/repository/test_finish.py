"""A move that a kill ended halfway: the next command carries out what is left of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from modelwright.digest import list_tree, sha256_file
from modelwright.errors import RepositoryError
from modelwright.repository import moves
from modelwright.repository.move import Move, carry_out
from modelwright.repository.moves import finish
from modelwright.repository.repository import Repository
from tests.repository.killing import in_child
from tests.repository.operated import Operated

Plan = Callable[[Repository], Move]


def plain(folder: Path) -> Operated:
    """`m` in versions 1 to 3."""
    operated = Operated(folder)
    for version in (1, 2, 3):
        operated.publish("m", version)
    return operated


def without_3(folder: Path) -> Operated:
    operated = plain(folder)
    carry_out(operated.repository, moves.rollback(operated.repository, "m"))
    return operated


def pipelines(folder: Path) -> Operated:
    """Two versions of `pipe`: the first runs version 1 of `tok` and `enc`, the second version 2."""
    operated = Operated(folder)
    for version in (1, 2):
        operated.publish("tok", version)
        operated.publish("enc", version)
        operated.pipeline("pipe", version, {"tok": version, "enc": version})
    return operated


def rolled_back(folder: Path) -> Operated:
    operated = pipelines(folder)
    carry_out(operated.repository, moves.rollback(operated.repository, "pipe"))
    return operated


CASES: dict[str, tuple[Callable[[Path], Operated], Plan]] = {
    "rollback": (plain, lambda it: moves.rollback(it, "m")),
    "rollback to a retired one": (
        lambda folder: _after(plain(folder), lambda it: moves.retire(it, "m", 1)),
        lambda it: moves.rollback(it, "m", 1),
    ),
    "retire": (plain, lambda it: moves.retire(it, "m", 3)),
    "restore": (without_3, lambda it: moves.restore(it, "m", 3)),
    "promote": (plain, lambda it: moves.promote(it, "m", 1)),
    "promote a retired one": (without_3, lambda it: moves.promote(it, "m", 3)),
    "rollback of a pipeline": (pipelines, lambda it: moves.rollback(it, "pipe")),
    "restore of a pipeline": (rolled_back, lambda it: moves.restore(it, "pipe", 2)),
    "promote of a pipeline": (pipelines, lambda it: moves.promote(it, "pipe", 1)),
    "retire of a pipeline": (pipelines, lambda it: moves.retire(it, "pipe", 2)),
}


def _after(operated: Operated, plan: Plan) -> Operated:
    carry_out(operated.repository, plan(operated.repository))
    return operated


def contents(operated: Operated) -> dict[str, str]:
    """Every file of the repository and of the retired versions, but the ledger, which has times in it."""
    roots = (operated.repository.root, operated.repository.retired_root)
    files = {f"{root.name}/{name}": path for root in roots for name, path in list_tree(root).items()}
    return {name: sha256_file(path) for name, path in files.items() if not name.endswith("modelwright.json")}


def check_pipeline(operated: Operated) -> None:
    """A pipeline's config names its version, and the versions of models that this one was verified with."""
    served = operated.served()
    if "pipe" in served:
        (version,) = served["pipe"]
        text = (operated.repository.root / "pipe/config.pbtxt").read_text()
        assert text.count(f"model_version: {version}") == 2
        assert version in served["tok"]
        assert version in served["enc"]


@pytest.mark.parametrize("case", CASES)
def test_what_a_kill_left_is_carried_out_by_the_next_command(tmp_path: Path, case: str) -> None:
    prepare, plan = CASES[case]

    def act(operated: Operated) -> None:
        carry_out(operated.repository, plan(operated.repository))

    prepared = tmp_path / "prepared"
    before = prepare(prepared).served()

    def copied(name: str) -> Operated:
        shutil.copytree(prepared, tmp_path / name, ignore=shutil.ignore_patterns("artifacts"))
        return Operated(tmp_path / name)

    whole = copied("whole")
    operations = in_child(lambda: act(whole)).operations
    after, final = whole.served(), contents(whole)
    assert finish(whole.repository) is None
    for point in range(1, operations + 1):
        operated = copied(f"killed{point}")
        assert in_child(lambda: act(operated), kill_at=point).killed  # noqa: B023
        check_pipeline(operated)
        operated.repository.clean()
        left = finish(operated.repository)
        check_pipeline(operated)
        if contents(operated) != final:  # it had not begun
            assert left is None
            assert operated.served() == before
            act(operated)
        assert (operated.served(), contents(operated)) == (after, final), f"killed at {point} of {operations}"
        assert finish(operated.repository) is None
        assert operated.repository.journal.check(operated.repository.ledger().journal) == []
        shutil.rmtree(operated.folder)


def test_what_was_finished_is_an_event_with_the_reason_that_was_given(tmp_path: Path) -> None:
    operated = plain(tmp_path)
    repository = operated.repository
    move = moves.rollback(repository, "m")
    repository.journal.append(move.what, move.model, move.version, why="slow")
    repository.reserve(states=move.states)  # and then the power failed
    left = finish(repository)
    assert left is not None
    assert left.says[-1] == "m serves version 2, before: version 3"
    last = repository.journal.last()
    assert last is not None
    assert (last.what, last.version, last.why) == ("finish rollback", 2, "slow")


_ELSEWHERE = Path("/dev/shm")  # a filesystem of its own on Linux


@pytest.mark.skipif(
    not os.access(_ELSEWHERE, os.W_OK) or _ELSEWHERE.stat().st_dev == Path.cwd().stat().st_dev,
    reason="there is one filesystem here",
)
def test_a_history_on_another_filesystem_is_refused_before_anything_changes(tmp_path: Path) -> None:
    published = plain(tmp_path).repository
    with TemporaryDirectory(dir=_ELSEWHERE) as history:
        repository = Repository(published.root, published.staging, Path(history))
        before = {name: sha256_file(path) for name, path in list_tree(published.root).items()}
        with pytest.raises(RepositoryError, match=r"is on another filesystem than .*\n.*set paths\.history"):
            carry_out(repository, moves.rollback(repository, "m"))
        assert {name: sha256_file(path) for name, path in list_tree(published.root).items()} == before
        assert repository.journal.last() is None
