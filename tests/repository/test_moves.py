"""What operators do to published versions: planned without writing, done by renames, and undone."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest

from modelwright.config.edit import served_by
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import RepositoryError
from modelwright.repository import draft, moves
from modelwright.repository.ledger import ServingState
from modelwright.repository.move import Move, carry_out, inverse, settle
from modelwright.repository.policy import SETTLE_S, utc_now, with_policy
from tests.repository.killing import in_child
from tests.repository.operated import Operated


@pytest.fixture
def operated(tmp_path: Path) -> Operated:
    """`m` has versions 1 to 3."""
    operated = Operated(tmp_path)
    for version in (1, 2, 3):
        operated.publish("m", version)
    return operated


@pytest.fixture
def pipelines(tmp_path: Path) -> Operated:
    """Two versions of `pipe`: the first runs version 1 of `tok` and `enc`, the second version 2."""
    operated = Operated(tmp_path)
    operated.publish("tok", 1)
    operated.publish("enc", 1)
    operated.pipeline("pipe", 1, {"tok": 1, "enc": 1})
    operated.publish("tok", 2)
    operated.publish("enc", 2)
    operated.pipeline("pipe", 2, {"tok": 2, "enc": 2})
    return operated


def contents(operated: Operated) -> dict[str, str]:
    """Every file of the repository and of the history but the ledger and the journal."""
    roots = (operated.repository.root, operated.repository.history)
    files = {f"{root.name}/{name}": path for root in roots for name, path in list_tree(root).items()}
    return {
        name: sha256_file(path) for name, path in files.items() if not name.endswith((".jsonl", "modelwright.json"))
    }


def done(operated: Operated, move: Move) -> Move:
    carry_out(operated.repository, move, why="a test")
    return move


def test_planning_writes_nothing(operated: Operated) -> None:
    before = list_tree(operated.folder)
    move = moves.rollback(operated.repository, "m")
    assert move.says == (
        "m: version 3 leaves the repository and is kept as retired",
        "m serves version 2, before: version 3",
    )
    assert list_tree(operated.folder) == before


def test_a_rollback_serves_the_version_before_and_keeps_the_other(operated: Operated) -> None:
    kept = sha256_file(operated.repository.folder("m", 3) / "model.onnx")
    done(operated, moves.rollback(operated.repository, "m"))
    assert operated.served() == {"m": [2]}
    assert operated.repository.versions("m") == [1, 2]
    assert operated.repository.retired("m") == [3]
    assert sha256_file(operated.repository.retired_folder("m", 3) / "model.onnx") == kept
    assert operated.repository.damage("m", 3, retired=True) == []
    assert operated.repository.ledger().state("m").withdrawn == {3: operated.repository.retired_manifest("m", 3).version_digest}  # type: ignore[union-attr]  # fmt: skip
    event = list(operated.repository.journal.events())[-1]
    assert (event.what, event.model, event.version, event.why) == ("rollback", "m", 2, "a test")
    assert operated.repository.journal.check() == []


def test_a_rollback_to_the_oldest_goes_there_at_once(operated: Operated) -> None:
    done(operated, moves.rollback(operated.repository, "m", 1))
    assert operated.served() == {"m": [1]}
    assert operated.repository.retired("m") == [2, 3]
    assert operated.repository.next_number("m", operated.repository.ledger()) == 4


def test_a_move_is_undone_by_its_inverse(operated: Operated) -> None:
    before = contents(operated)
    state = operated.repository.ledger().state("m")
    move = done(operated, moves.rollback(operated.repository, "m", 1))
    done(operated, inverse(move))
    assert contents(operated) == before
    assert operated.repository.ledger().state("m") == state


def test_a_retired_version_comes_back_under_its_number(operated: Operated) -> None:
    before = contents(operated)
    done(operated, moves.rollback(operated.repository, "m"))
    move = moves.restore(operated.repository, "m", 3)
    assert move.says == ("m: version 3 comes back", "m serves version 3, before: version 2")
    done(operated, move)
    assert contents(operated) == before
    assert operated.repository.ledger().state("m").withdrawn == {}


def test_a_promoted_version_is_served_whatever_is_newer(operated: Operated) -> None:
    before = contents(operated)
    done(operated, moves.promote(operated.repository, "m", 1))
    assert operated.served() == {"m": [1]}
    assert operated.repository.versions("m") == [1, 2, 3]
    done(operated, moves.promote(operated.repository, "m", None))
    assert operated.served() == {"m": [3]}
    assert contents(operated) == before


def test_promote_keeps_everything_else_of_the_config(operated: Operated) -> None:
    config = operated.repository.root / "m/config.pbtxt"
    config.write_text(
        f"# a comment\n{config.read_text()}\nversion_policy {{\n  latest {{ num_versions: 2 }}\n}}  # two\n"
    )
    before = config.read_text()
    done(operated, moves.promote(operated.repository, "m", 1))
    line = (
        "version_policy { specific { versions: [ 1 ] } }  # model.yaml: version_policy { latest { num_versions: 2 } }"
    )
    assert config.read_text() == before.replace("version_policy {\n  latest { num_versions: 2 }\n}  # two", line)
    done(operated, moves.promote(operated.repository, "m", None))
    assert operated.served() == {"m": [3, 2]}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (lambda it: moves.retire(it, "n", 1), "n: is not in model_repository"),
        (lambda it: moves.retire(it, "m", 7), "m: version 7 does not exist"),
        (lambda it: moves.restore(it, "m", 1), "m: version 1 is in the repository already"),
        (lambda it: moves.restore(it, "m", 9), "m: version 9 is not among the retired ones"),
        (lambda it: moves.rollback(it, "m", 3), "m: version 3 is served"),
        (lambda it: moves.rollback(it, "m", 8), "m: there is no version 8"),
        (lambda it: moves.promote(it, "m", 8), "m: version 8 does not exist"),
    ],
)
def test_what_cannot_be_is_refused(operated: Operated, plan, message: str) -> None:  # type: ignore[no-untyped-def]
    before = list_tree(operated.folder)
    with pytest.raises(RepositoryError, match=message) as caught:
        plan(operated.repository)
    assert caught.value.hint
    assert list_tree(operated.folder) == before


def test_the_last_version_cannot_leave(tmp_path: Path) -> None:
    operated = Operated(tmp_path)
    operated.publish("m", 1)
    with pytest.raises(RepositoryError, match="version 1 is its only one"):
        moves.retire(operated.repository, "m", 1)
    with pytest.raises(RepositoryError, match="there is no version below 1"):
        moves.rollback(operated.repository, "m")


def test_other_tensors_are_refused_unless_allowed(tmp_path: Path) -> None:
    operated = Operated(tmp_path)
    operated.publish("m", 1, size=2)
    operated.publish("m", 2, size=3)
    expected = r"m: version 1 has other tensors than version 2, which is served: input x: FP32 \[3\] → FP32 \[2\]"
    with pytest.raises(RepositoryError, match=expected):
        moves.rollback(operated.repository, "m")
    done(operated, moves.rollback(operated.repository, "m", allow_signature_change=True))
    text = (operated.repository.root / "m/config.pbtxt").read_text()
    assert text.count("dims: [ 2 ]") == 2
    assert "dims: [ 3 ]" not in text


# --- pipelines --------------------------------------------------------------------------------------------------------


def test_versions_that_a_pipeline_needs_stay_served(pipelines: Operated) -> None:
    with pytest.raises(RepositoryError, match="tok: version 2 is needed by pipe"):
        moves.retire(pipelines.repository, "tok", 2)
    with pytest.raises(RepositoryError, match="enc: version 2 is needed by pipe"):
        moves.rollback(pipelines.repository, "enc")
    with pytest.raises(RepositoryError, match="tok: version 1 cannot be the promoted one: a pipeline needs version 2"):
        moves.promote(pipelines.repository, "tok", 1)


def test_a_pipeline_takes_its_models_back_with_it(pipelines: Operated) -> None:
    move = moves.rollback(pipelines.repository, "pipe")
    assert [change.model for change in move.changes] == ["enc", "tok", "pipe"]
    done(pipelines, move)
    assert pipelines.served() == {"tok": [2, 1], "enc": [2, 1], "pipe": [1]}
    text = (pipelines.repository.root / "pipe/config.pbtxt").read_text()
    assert text.count("model_version: 1") == 2
    assert "versions: [ 1 ]" in text
    settle(pipelines.repository, move)
    # Requests to the tokenizer alone keep getting its newest version: the pipeline does not hold it back.
    assert pipelines.served() == {"tok": [2, 1], "enc": [2, 1], "pipe": [1]}


def test_versions_that_no_pipeline_needs_any_more_are_dropped_once_servers_have_followed(pipelines: Operated) -> None:
    done(pipelines, moves.rollback(pipelines.repository, "pipe"))
    move = done(pipelines, moves.restore(pipelines.repository, "pipe", 2))
    assert pipelines.served() == {"tok": [2, 1], "enc": [2, 1], "pipe": [2]}
    settle(pipelines.repository, move)
    assert pipelines.served() == {"tok": [2], "enc": [2], "pipe": [2]}
    assert pipelines.repository.ledger().serving == {}


def test_without_servers_that_tell_they_are_dropped_a_minute_later(pipelines: Operated) -> None:
    done(pipelines, moves.rollback(pipelines.repository, "pipe"))
    done(pipelines, moves.restore(pipelines.repository, "pipe", 2))
    done(pipelines, moves.tidy(pipelines.repository))
    assert pipelines.served()["tok"] == [2, 1]
    later = utc_now() + timedelta(seconds=SETTLE_S + 1)
    with mock.patch.object(draft, "utc_now", return_value=later):
        done(pipelines, moves.tidy(pipelines.repository))
    assert pipelines.served() == {"tok": [2], "enc": [2], "pipe": [2]}


def test_a_pipeline_brings_retired_versions_back_that_it_needs(pipelines: Operated) -> None:
    done(pipelines, moves.retire(pipelines.repository, "tok", 1))
    move = done(pipelines, moves.rollback(pipelines.repository, "pipe"))
    assert "tok: version 1 comes back" in move.says
    assert pipelines.served() == {"tok": [2, 1], "enc": [2, 1], "pipe": [1]}
    done(pipelines, inverse(move))
    assert pipelines.served() == {"tok": [2], "enc": [2], "pipe": [2]}
    assert pipelines.repository.retired("tok") == [1]


def test_a_pipeline_whose_model_is_gone_stays(pipelines: Operated) -> None:
    done(pipelines, moves.retire(pipelines.repository, "tok", 1))
    pipelines.repository.remove_retired("tok", 1)
    with pytest.raises(RepositoryError, match="tok: version 1, which pipe needs, is gone"):
        moves.rollback(pipelines.repository, "pipe")


def test_a_pipeline_of_an_older_modelwright_gets_its_pins_from_its_digests(tmp_path: Path) -> None:
    operated = Operated(tmp_path)
    operated.publish("tok", 1)
    operated.pipeline("pipe", 1, {"tok": 1}, pin=False)
    (operated.repository.folder("pipe", 1) / "config.pbtxt").unlink()
    operated.publish("tok", 2)
    operated.pipeline("pipe", 2, {"tok": 2}, pin=False)
    done(operated, moves.rollback(operated.repository, "pipe"))
    assert "model_version: 1" in (operated.repository.root / "pipe/config.pbtxt").read_text()
    assert operated.served() == {"tok": [2, 1], "pipe": [1]}


@pytest.mark.parametrize("again", ["tidy", "rollback"])
def test_a_rollback_that_was_killed_is_finished_by_the_next_command(tmp_path: Path, again: str) -> None:
    """At no point does a version that was withdrawn come back."""
    point, seen = 0, set()
    while True:
        point += 1
        operated = Operated(tmp_path / str(point))
        for version in (1, 2, 3):
            operated.publish("m", version)
        repository = operated.repository
        move = moves.rollback(repository, "m", 1)
        if not in_child(lambda: carry_out(repository, move), kill_at=point).killed:  # noqa: B023
            break
        seen.add(operated.served()["m"][0])
        was_withdrawn = bool(repository.ledger().state("m").withdrawn)
        repository.clean()
        if again == "tidy":
            carry_out(repository, moves.tidy(repository))
            assert operated.served() == {"m": [1 if was_withdrawn else 3]}
        elif repository.versions("m") != [1]:
            carry_out(repository, moves.rollback(repository, "m", 1))
        if again == "rollback" or was_withdrawn:
            assert (operated.served(), repository.versions("m"), repository.retired("m")) == ({"m": [1]}, [1], [2, 3])
    assert seen == {1, 3}


def test_versions_that_pins_do_not_name_are_not_served_whatever_models_are_called() -> None:
    """A model can be named by a number."""
    pins = '{"4": {"3": 1}}'
    text = (
        f'name: "m"\nbackend: "python"\nparameters {{ key: "pins", value: {{ string_value: {json.dumps(pins)} }} }}\n'
    )
    text += "version_policy { latest { num_versions: 3 } }\n"
    found, _ = with_policy(text, "m", {3, 4}, ServingState(), (), utc_now())
    assert served_by(found, "m", {3, 4}) == [4]
