"""Builds of a project whose operators roll back and promote, and of pipelines that name the versions that they run."""

from __future__ import annotations

import json
import shutil
from unittest import mock

import pytest

from modelwright.repository import moves, policy
from modelwright.repository.move import carry_out
from tests.build.test_faults import ensemble_without_server
from tests.conftest import Sandbox, doubling_onnx


def test_a_build_does_not_publish_again_what_was_rolled_back(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    doubling_onnx(folder / "model.onnx", 2.001)
    sandbox.build()
    carry_out(sandbox.repository, moves.rollback(sandbox.repository, "doubled"))
    before = sandbox.published()
    for _ in range(2):  # no stamp hides it
        result = sandbox.cli("build")
        assert "Not served: doubled: version 2, which is the same, was rolled back:" in result.output
    assert sandbox.published() == before
    doubling_onnx(folder / "model.onnx", 2.002)
    assert sandbox.build()["doubled"].version == 3
    assert sandbox.repository.versions("doubled") == [1, 3]


def test_a_build_publishes_and_does_not_serve_while_another_version_is_promoted(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    doubling_onnx(folder / "model.onnx", 2.001)
    sandbox.build()
    carry_out(sandbox.repository, moves.promote(sandbox.repository, "doubled", 1))
    config = sandbox.config("doubled")
    doubling_onnx(folder / "model.onnx", 2.002)
    outcome = sandbox.build()["doubled"]
    assert (outcome.status, outcome.version) == ("new", 3)
    assert outcome.note == "version 1 is promoted: modelwright promote doubled 3 serves 3"
    assert sandbox.config("doubled") == config
    carry_out(sandbox.repository, moves.promote(sandbox.repository, "doubled", None))
    assert sandbox.build()["doubled"].status == "unchanged"
    assert "version_policy" not in sandbox.config("doubled")


def test_a_pipeline_names_the_versions_that_it_was_verified_with(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble_without_server(sandbox, monkeypatch)
    sandbox.build()
    assert sandbox.config("both").count("model_version: 1  # the version that it was verified with") == 2
    assert "version_policy { specific { versions: [ 1 ] } }" in sandbox.config("both")
    assert "version_policy" not in sandbox.config("bad")
    doubling_onnx(sandbox.root / "builders/bad/model.onnx", 2.0001)
    assert {outcome.status for outcome in sandbox.build().values()} == {"new", "unchanged"}
    assert "model_version: 2" in sandbox.config("both")
    assert "versions: [ 2 ]" in sandbox.config("both")
    assert "versions: [ 1, 2 ]" in sandbox.config("bad")  # a server that polls may still run the old pipeline
    with mock.patch.object(policy, "SETTLE_S", 0):  # as a minute later
        assert sandbox.build()["bad"].status == "config"
        assert {outcome.status for outcome in sandbox.build().values()} == {"unchanged"}
    assert "version_policy" not in sandbox.config("bad")


def test_every_publish_is_in_the_journal(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    sandbox.build()
    doubling_onnx(folder / "model.onnx", 2.001)
    sandbox.build()
    events = list(sandbox.repository.journal.events())
    assert [(event.what, event.model, event.version) for event in events] == [
        ("publish", "doubled", 1),
        ("publish", "doubled", 2),
    ]
    assert (
        json.loads(json.dumps(events[1].details["versions"]))["2"]["digest"]
        == sandbox.manifest("doubled", 2).version_digest
    )
    assert sandbox.repository.journal.check() == []
    head = sandbox.repository.ledger().journal
    assert head is not None
    assert (head.lines, head) == (2, sandbox.repository.journal.head())


@pytest.mark.parametrize("text", [None, "no config {"])
@pytest.mark.parametrize("decided", ["rolled back", "promoted"])
def test_a_lost_config_is_made_again_for_the_version_that_is_served(
    sandbox: Sandbox, decided: str, text: str | None
) -> None:
    sandbox.doubled_versions(2)
    plan = moves.rollback if decided == "rolled back" else moves.promote
    carry_out(sandbox.repository, plan(sandbox.repository, "doubled", 1))
    file, before = sandbox.root / "model_repository/doubled/config.pbtxt", sandbox.published()
    file.unlink()
    if text is not None:
        file.write_text(text)
    outcome = sandbox.build()["doubled"]
    assert outcome.status == "config"
    assert outcome.note
    assert sandbox.published() == before


def test_a_pipeline_waits_for_a_model_that_fails_after_it_was_built(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble_without_server(sandbox, monkeypatch)
    sandbox.build()
    doubling_onnx(sandbox.root / "builders/bad/model.onnx", 3)  # below its gate
    for _ in range(2):  # the first one tries the pipeline beside it, or stops before that
        outcomes = sandbox.build()
        assert {name: outcomes[name].status for name in ("bad", "both")} == {"bad": "failed", "both": "held"}
        assert outcomes["both"].reason == "it waits for bad, which failed"


def test_without_its_ledger_a_repository_is_not_built_upon(sandbox: Sandbox) -> None:
    """What operators decided and which numbers were used stands in it alone."""
    sandbox.onnx_builder()
    sandbox.build()
    (sandbox.project.repository / "modelwright.json").unlink()
    doubling_onnx(sandbox.root / "builders/doubled/model.onnx", 2.001)
    assert "modelwright.json: is missing" in sandbox.error()
    assert sandbox.cli("fsck", "--repair").exit_code in (0, 1)
    assert sandbox.build()["doubled"].version == 2


def test_numbers_go_on_where_the_whole_repository_was_removed(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    shutil.rmtree(sandbox.project.repository)
    assert sandbox.build()["doubled"].version == 2
