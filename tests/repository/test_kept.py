"""Pipelines of which several versions are served side by side, each with the models that it was verified with."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.config.edit import parameter
from modelwright.config.render import parse
from modelwright.repository import moves
from modelwright.repository.move import carry_out
from modelwright.repository.policy import utc_now, with_policy
from modelwright.repository.versions import checkable, composing_first, superseded, with_ensembles
from modelwright.triton.layout import CONFIG, PINS
from tests.repository.operated import Operated


@pytest.fixture
def kept(tmp_path: Path) -> Operated:
    """`pipe` has versions 1 to 4, and version N runs version N of `tok` and `enc`."""
    operated = Operated(tmp_path)
    for version in (1, 2, 3, 4):
        operated.publish("tok", version)
        operated.publish("enc", version)
        operated.kept("pipe", version, {"tok": version, "enc": version})
        _tidy(operated)
    return operated


def _tidy(operated: Operated) -> None:
    """What a build does to each config."""
    carry_out(operated.repository, moves.tidy(operated.repository))


def _config(operated: Operated, model: str = "pipe") -> str:
    return (operated.repository.root / model / CONFIG).read_text()


def test_the_newest_versions_are_served_and_what_they_run(kept: Operated) -> None:
    assert kept.served() == {"pipe": [4, 3, 2], "tok": [4, 3, 2], "enc": [4, 3, 2]}


def test_each_version_whose_pins_are_served_can_be_checked(kept: Operated) -> None:
    assert checkable(kept.repository, "pipe") == [1, 2, 3, 4]
    carry_out(kept.repository, moves.retire(kept.repository, "tok", 1))
    assert checkable(kept.repository, "pipe") == [2, 3, 4]
    assert superseded(kept.repository, "pipe", 1) == "it runs another version of tok now"


def test_a_pipeline_is_loaded_after_the_models_that_its_versions_call(kept: Operated) -> None:
    assert composing_first(kept.repository, ["pipe"]) == ["tok", "enc", "pipe"]
    assert with_ensembles(kept.repository, ["enc"]) == ["enc", "pipe"]


def test_a_rollback_serves_older_versions_again_with_what_they_run(kept: Operated) -> None:
    carry_out(kept.repository, moves.rollback(kept.repository, "pipe"))
    assert kept.served()["pipe"] == [3, 2, 1]
    assert {1, 2, 3} <= set(kept.served()["tok"])
    assert (
        parameter(parse(_config(kept), "pipe"), PINS)
        == '{"1": {"enc": 1, "tok": 1}, "2": {"enc": 2, "tok": 2}, "3": {"enc": 3, "tok": 3}}'
    )


def test_a_promoted_version_is_served_alone_with_what_it_runs(kept: Operated) -> None:
    carry_out(kept.repository, moves.promote(kept.repository, "pipe", 2))
    assert kept.served()["pipe"] == [2]
    carry_out(kept.repository, moves.promote(kept.repository, "pipe", None))
    assert kept.served()["pipe"] == [4, 3, 2]


@pytest.fixture
def changed(tmp_path: Path) -> Operated:
    """`pipe` was a plain ensemble in its first two versions, and is kept since."""
    operated = Operated(tmp_path)
    for version in (1, 2, 3, 4):
        operated.publish("tok", version)
        publish = operated.pipeline if version < 3 else operated.kept
        publish("pipe", version, {"tok": version})
        _tidy(operated)
    return operated


def test_versions_of_an_ensemble_are_not_served_as_a_python_model(changed: Operated) -> None:
    assert changed.served()["pipe"] == [4, 3]
    assert checkable(changed.repository, "pipe") == [3, 4]


def test_a_rollback_over_the_change_of_form_takes_the_config_of_then(changed: Operated) -> None:
    carry_out(changed.repository, moves.rollback(changed.repository, "pipe", 2))
    text = _config(changed)
    assert 'platform: "ensemble"' in text
    assert "backend" not in text
    assert changed.served()["pipe"] == [2]
    carry_out(changed.repository, moves.promote(changed.repository, "pipe", 3))
    assert 'backend: "python"' in _config(changed)
    assert changed.served()["pipe"] == [3]


def test_an_ensemble_whose_steps_were_others_cannot_be_checked(tmp_path: Path) -> None:
    operated = Operated(tmp_path)
    for model in ("tok", "enc"):
        operated.publish(model, 1)
    operated.pipeline("pipe", 1, {"tok": 1, "enc": 1})
    operated.pipeline("pipe", 2, {"enc": 1, "tok": 1})
    assert superseded(operated.repository, "pipe", 1) == "the config has other steps now"
    assert superseded(operated.repository, "pipe", 2) == ""


def test_a_python_model_from_before_it_had_pins_is_served_while_it_is_alone(kept: Operated) -> None:
    text, _ = with_policy(_config(kept), "pipe", [7], kept.repository.ledger().state("pipe"), (), utc_now())
    assert "versions: [ 7 ]" in text
