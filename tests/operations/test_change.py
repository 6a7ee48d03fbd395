"""`modelwright rollback`, `promote`, `retire` and `restore`, as an operator types them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from modelwright.api import Project
from modelwright.build.build import LOCK
from modelwright.errors import LockedError, StoreError
from modelwright.fsops import locked, rename_durably
from modelwright.repository import moves
from tests.conftest import Sandbox
from tests.operations.conftest import publish_pipeline


def do(sandbox: Sandbox, command: str) -> str:
    result = sandbox.cli(*command.split())
    assert result.exit_code == 0, result.output
    return result.output


def served(sandbox: Sandbox, model: str = "doubled") -> list[int]:
    return [item.version for item in Project(sandbox.project).versions(model).versions if item.served]


def places(sandbox: Sandbox, model: str = "doubled") -> tuple[list[int], list[int]]:
    """(the versions in the repository, the retired ones)"""
    return sandbox.repository.versions(model), sandbox.repository.retired(model)


# --- what each does ---------------------------------------------------------------------------------------------------

DONE = {
    "rollback doubled": ([2], ([1, 2], [3])),
    "rollback doubled --to 1": ([1], ([1], [2, 3])),
    "promote doubled 1": ([1], ([1, 2, 3], [])),
    "retire doubled 1": ([3], ([2, 3], [1])),
    "retire doubled 3": ([2], ([1, 2], [3])),
}


@pytest.mark.parametrize("command", DONE)
def test_what_is_served_then_and_what_leaves(three: Sandbox, command: str) -> None:
    do(three, command)
    assert (served(three), places(three)) == DONE[command]


@pytest.mark.parametrize("command", DONE)
def test_the_command_that_takes_it_back(three: Sandbox, command: str) -> None:
    undo = do(three, command).splitlines()[-1].removeprefix("Undo: modelwright ")
    do(three, undo)
    assert served(three) == [3]
    assert 3 in places(three)[0]


@pytest.mark.parametrize("command", DONE)
def test_a_dry_run_says_the_same_and_does_nothing(three: Sandbox, command: str) -> None:
    before = three.published()
    planned = do(three, f"{command} --dry-run").splitlines()
    assert (three.published(), places(three)) == (before, ([1, 2, 3], []))
    assert planned[-1] == "Nothing was changed: this was a dry run."
    assert do(three, command).splitlines()[:-1] == planned[:-1]


def test_json(three: Sandbox) -> None:
    data = json.loads(do(three, "rollback doubled --dry-run --json"))
    assert (data["what"], data["model"], data["version"], data["done"]) == ("rollback", "doubled", 2, False)
    assert data["serves"] == {"doubled": [2]}
    assert data["undo"] == "modelwright restore doubled 3"


def test_a_version_comes_back_under_its_number_with_the_same_files(three: Sandbox) -> None:
    before = three.published()
    do(three, "retire doubled 3")
    do(three, "restore doubled 3")
    assert three.published() == before


@pytest.mark.parametrize("promoted", [2, 3], ids=["an older one", "the newest"])
def test_a_new_build_is_not_served_while_another_version_is_promoted(three: Sandbox, promoted: int) -> None:
    do(three, f"promote doubled {promoted}")
    three.onnx_builder(factor=2.01)
    assert three.build()["doubled"].version == 4
    assert served(three) == [promoted]
    do(three, "promote doubled latest")
    assert served(three) == [4]


def test_a_build_does_not_publish_again_what_was_rolled_back(three: Sandbox) -> None:
    do(three, "rollback doubled")
    outcome = three.build()["doubled"]
    assert (outcome.version, served(three)) == (2, [2])
    assert do(three, "history doubled").count("rollback") == 1


def test_what_is_so_already_is_no_event(three: Sandbox) -> None:
    do(three, "promote doubled 2")
    before = do(three, "history")
    assert do(three, "promote doubled 2") == "Nothing to do: doubled is served like that already.\n"
    assert do(three, "history") == before


# --- what cannot be ---------------------------------------------------------------------------------------------------

REFUSED = {
    "retire doubed 1": "doubed: is not in model_repository\n  hint: did you mean 'doubled'?",
    "restore doubed 1": "doubed: is not in model_repository\n  hint: did you mean 'doubled'?",
    "rollback doubed": "doubed: is not in model_repository\n  hint: did you mean 'doubled'?",
    "promote doubed 1": "doubed: is not in model_repository\n  hint: did you mean 'doubled'?",
    "retire doubled 9": "doubled: version 9 does not exist\n  hint: in the repository: 1, 2, 3",
    "restore doubled 9": "doubled: version 9 is not among the retired ones\n  hint: in the repository: 1, 2, 3",
    "restore doubled 2": "doubled: version 2 is in the repository already\n  hint: in the repository: 1, 2, 3",
    "rollback doubled --to 9": "doubled: there is no version 9\n  hint: in the repository: 1, 2, 3",
    "rollback doubled --to 3": "doubled: version 3 is served",
    "promote doubled 9": "doubled: version 9 does not exist\n  hint: in the repository: 1, 2, 3",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_is_refused_says_what_there_is(three: Sandbox, command: str) -> None:
    assert f"Error: {REFUSED[command]}" in three.error(*command.split())
    assert do(three, "history").count("doubled") == do(three, "history").count(" publish ")


def test_a_retired_version_is_not_retired_again(three: Sandbox) -> None:
    do(three, "retire doubled 1")
    assert "hint: bring it back: modelwright restore doubled 1" in three.error("retire", "doubled", "1")


def test_the_last_version_stays(sandbox: Sandbox) -> None:
    sandbox.doubled_versions(1)
    assert "doubled: version 1 is its only one" in sandbox.error("retire", "doubled", "1")
    assert "doubled: there is no version below 1" in sandbox.error("rollback", "doubled")


def test_a_promoted_version_stays(three: Sandbox) -> None:
    do(three, "promote doubled 2")
    assert "hint: promote another one first: modelwright promote doubled latest" in three.error(
        "retire", "doubled", "2"
    )


def test_a_version_that_a_pipeline_needs_stays(three: Sandbox) -> None:
    publish_pipeline(three, {1: 2})
    assert served(three) == [3, 2]
    assert "doubled: version 2 is needed by both\n  hint: roll both back" in three.error("retire", "doubled", "2")
    publish_pipeline(three, {2: 3})
    assert "doubled: version 3 is needed by both\n  hint: roll both back first: modelwright rollback both" in (
        three.error("rollback", "doubled")
    )


def test_a_pipeline_goes_back_to_the_version_that_it_was_verified_with(three: Sandbox) -> None:
    publish_pipeline(three, {1: 1, 2: 3})
    do(three, "rollback both")
    assert "model_version: 1" in three.config("both")
    assert served(three) == [3, 1]  # 3: what model.yaml asks for
    do(three, "restore both 2")
    assert "model_version: 3" in three.config("both")


def test_other_tensors_are_refused_unless_they_are_allowed(sandbox: Sandbox) -> None:
    sandbox.doubled_versions(1)
    sandbox.widened()
    message = sandbox.error("rollback", "doubled")
    assert (
        "doubled: version 1 has other tensors than version 2, which is served: input x: FP32 [3] → FP32 [2]" in message
    )
    assert "add --allow-signature-change" in message
    do(sandbox, "rollback doubled --allow-signature-change")
    assert served(sandbox) == [1]
    assert "dims: [ 2 ]" in sandbox.config("doubled")
    assert sandbox.cli("lint").exit_code == 0


@pytest.mark.parametrize("command", ["restore doubled 1", "promote doubled 1", "rollback doubled --to 1"])
def test_a_damaged_retired_version_does_not_come_back(three: Sandbox, command: str) -> None:
    do(three, "retire doubled 1")
    (three.project.history / "retired/doubled/1/model.onnx").write_bytes(b"x")
    assert "doubled: retired version 1 is damaged: model.onnx changed\n  hint: " in three.error(*command.split())


MANIFESTS = {
    "damaged": ("{", "damaged: not JSON"),
    "of a newer Modelwright": ('{"schema": 99, "modelwright": "9.0"}', "written by a newer Modelwright (9.0)"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_manifest_that_cannot_be_read_stops_what_needs_it(three: Sandbox, case: str) -> None:
    text, message = MANIFESTS[case]
    (three.root / "model_repository/doubled/2/manifest.json").write_text(text)
    assert message in three.error("rollback", "doubled")


def test_a_ledger_that_cannot_be_read_stops_all(three: Sandbox) -> None:
    (three.root / "model_repository/modelwright.json").write_text("{")
    for command in ("rollback doubled", "promote doubled 1", "retire doubled 1", "gc --keep 1", "versions doubled"):
        assert "modelwright.json: is no ledger" in three.error(*command.split())


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_what_a_server_would_refuse_is_not_done(three: Sandbox, option: list[str]) -> None:
    config = three.root / "model_repository/doubled/config.pbtxt"
    config.write_text(config.read_text().replace('name: "doubled"', 'name: "dabled"'))
    output = three.error("rollback", "doubled", *option)
    assert "Error: doubled: lint: 1 error, so nothing is changed\n  doubled/config.pbtxt:" in output
    assert places(three) == ([1, 2, 3], [])


def test_what_was_promoted_leaves_nothing_for_later(three: Sandbox) -> None:
    Project(three.project).promote("doubled", 1)
    changed = Project(three.project).promote("doubled", None)
    assert (changed.serves, changed.later) == ({"doubled": (3,)}, {})


# --- others at work, and the disk -------------------------------------------------------------------------------------


def test_one_operator_at_a_time(three: Sandbox) -> None:
    with locked(three.project.state / LOCK, "modelwright build", wait=False):
        output = three.error("rollback", "doubled")
        assert "build.lock is held by modelwright build (process " in output
        assert "wait for it to end, or run with --wait" in output
        with pytest.raises(LockedError):
            Project(three.project).gc(1)
        do(three, "rollback doubled --dry-run")


def test_the_second_operator_waits_when_asked_to(three: Sandbox) -> None:
    heard: list[str] = []
    holder = locked(three.project.state / LOCK, "modelwright build", wait=False)
    holder.__enter__()

    def say(who: str) -> None:
        heard.append(who)
        holder.__exit__(None, None, None)

    assert Project(three.project).rollback("doubled", wait=True, say=say).done
    assert heard[0].startswith("modelwright build (process ")
    assert served(three) == [2]


@pytest.mark.parametrize("command", ["rollback", "promote", "retire"])
@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")]
)
def test_a_disk_that_refuses_anywhere_leaves_the_old_or_the_new(
    three: Sandbox, monkeypatch: pytest.MonkeyPatch, command: str, code: int, message: str
) -> None:
    """And the same command goes on from there, until it is done."""
    before, fsync, refused = three.published(), os.fsync, 0

    def at(point: int) -> Callable[[int], None]:
        calls = count(1)

        def refuse(handle: int) -> None:
            if next(calls) == point:
                raise OSError(code, os.strerror(code))
            fsync(handle)

        return refuse

    for point in count(1):
        monkeypatch.setattr(os, "fsync", at(point))
        try:
            getattr(Project(three.project), command)("doubled", 1)
            break
        except StoreError as error:
            assert message in str(error)  # noqa: PT017 (whether it comes at all depends on the point)
            refused += 1
        monkeypatch.undo()
    assert refused > 2
    assert (served(three), places(three)) == DONE[f"{command} doubled{' --to' if command == 'rollback' else ''} 1"]
    assert three.published() != before


def test_a_rollback_that_was_ended_halfway_goes_back_only_once(three: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config names version 2 already when the disk is full."""

    def full(source: Path, target: Path) -> None:
        if target.parent.parent.name == "retired":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename_durably(source, target)

    monkeypatch.setattr("modelwright.repository.repository.rename_durably", full)
    with pytest.raises(StoreError):
        Project(three.project).rollback("doubled", why="slow")
    monkeypatch.undo()
    assert (served(three), places(three)) == ([2], ([1, 2, 3], []))
    assert Project(three.project).rollback("doubled", dry_run=True).version == 2
    assert do(three, "rollback doubled").startswith("doubled: version 3 leaves the repository")
    assert (served(three), places(three)) == ([2], ([1, 2], [3]))
    assert Project(three.project).rollback("doubled").version == 1


def test_a_build_finishes_what_an_operator_began(three: Sandbox) -> None:
    move = moves.rollback(three.repository, "doubled")
    three.repository.journal.append(move.what, move.model, move.version)
    three.repository.reserve(states=move.states)  # and then the power failed
    three.cli("build")
    assert (served(three), places(three)) == ([2], ([1, 2], [3]))
