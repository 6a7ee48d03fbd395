"""`modelwright versions`: where each version is, whether it is served and why, and how it did."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from modelwright import text
from modelwright.api import Project
from modelwright.loadtest.document import Verdict
from modelwright.loadtest.gate.verdicts import past_verdicts
from modelwright.loadtest.report.output import RESULT
from modelwright.operations.versions import VersionStatus
from tests.conftest import Sandbox
from tests.loadtest import results
from tests.operations.conftest import publish_pipeline


def found(sandbox: Sandbox, version: int, model: str = "doubled") -> VersionStatus:
    versions = Project(sandbox.project).versions(model).versions
    return next(item for item in versions if item.version == version)


def states(sandbox: Sandbox, model: str = "doubled") -> dict[int, str]:
    """The column `state` of each version."""
    result = sandbox.cli("versions", model)
    assert result.exit_code == 0, result.output
    rows = [re.split(r"  +", line) for line in result.output.splitlines()[1:] if re.match(r"\d", line)]
    return {int(row[0]): row[1] for row in rows}


def gated(
    folder: Path, verdict: Verdict, baseline: str, candidate: str, created: datetime, model: str = "doubled"
) -> None:
    """A result as `load ab` writes it."""
    gate = results.gate(model, verdict, 0.1, 0.01).model_copy(update={"baseline": baseline, "candidate": candidate})
    document = results.result("ab", model, [], gates=[gate]).model_copy(update={"created": created.isoformat()})
    place = folder / f"{created:%Y%m%d-%H%M%S}-ab-{model}"
    place.mkdir(parents=True)
    (place / RESULT).write_text(document.model_dump_json())


def test_what_is_known_of_each_version(three: Sandbox) -> None:
    result = three.cli("versions", "doubled")
    rows = [re.split(r"  +", line) for line in result.output.splitlines()]
    assert rows[0] == ["version", "state", "digest", "age", "size", "accuracy", "gate"]
    newest = three.manifest("doubled", 3)
    digest, size = newest.version_digest[:12], text.size(newest.size_bytes)
    assert rows[1] == ["3", "served", digest, rows[1][3], size, "1.0000", "-"]
    assert re.fullmatch(r"\d+ (s|min)", rows[1][3])
    assert [row[:2] for row in rows[2:]] == [["2", "not served"], ["1", "not served"]]


def test_json_has_the_same(three: Sandbox) -> None:
    data = json.loads(three.cli("versions", "doubled", "--json").output)
    assert [item["version"] for item in data["versions"]] == [3, 2, 1]
    newest = data["versions"][0]
    assert newest["created"] == three.manifest("doubled", 3).created.isoformat()
    assert newest["metrics"] == {"accuracy": 1.0}
    assert (newest["served"], newest["default"], newest["place"]) == (True, True, "live")


def test_states_follow_what_operators_do(three: Sandbox) -> None:
    three.cli("retire", "doubled", "1")
    assert states(three) == {3: "served", 2: "not served", 1: "retired"}
    three.cli("rollback", "doubled")
    assert states(three) == {3: "withdrawn", 2: "served", 1: "retired"}
    three.cli("promote", "doubled", "1")
    assert states(three) == {3: "withdrawn", 2: "not served", 1: "promoted"}
    assert "End that: modelwright promote doubled latest" in three.cli("versions", "doubled").output


def test_a_policy_that_serves_several_names_the_default(sandbox: Sandbox) -> None:
    sandbox.doubled_versions(2)
    config = sandbox.root / "model_repository/doubled/config.pbtxt"
    config.write_text(config.read_text() + "\nversion_policy { all {} }\n")
    assert states(sandbox) == {2: "served, the default", 1: "served"}


def test_a_pipeline_names_the_versions_that_it_was_verified_with(three: Sandbox) -> None:
    publish_pipeline(three, {1: 1, 2: 2})
    rows = [re.split(r"  +", line) for line in three.cli("versions", "both").output.splitlines()]
    assert [row[-1] for row in rows] == ["runs", "doubled 2", "doubled 1"]
    assert states(three)[2] == "served, needed by both"


# --- the verdict of the performance gate ------------------------------------------------------------------------------


def test_the_latest_verdict_on_each_version(three: Sandbox) -> None:
    loads, now = three.project.state / "load", datetime.now(timezone.utc)
    gated(loads, "FAIL", "version 2", "version 3", now + timedelta(minutes=1))
    gated(loads, "PASS", "version 1", "version 3", now + timedelta(minutes=2))
    gated(loads, "INCONCLUSIVE", "version 1", "version 2", now + timedelta(minutes=3))
    gated(loads, "FAIL", "version 1", "version 3", now + timedelta(minutes=4), model="other")
    gated(loads, "FAIL", "version 1 of a", "version 3 of b", now + timedelta(minutes=5))
    assert [line.rpartition("  ")[2] for line in three.cli("versions", "doubled").output.splitlines()] == [
        "gate",
        "PASS against 1",
        "INCONCLUSIVE against 1",
        "-",
    ]


def test_a_verdict_that_is_older_than_the_version_is_on_another_one(three: Sandbox) -> None:
    gated(
        three.project.state / "load", "FAIL", "version 2", "version 3", datetime.now(timezone.utc) - timedelta(days=1)
    )
    assert found(three, 3).gate is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"created": 1}', '{"created": "2026-01-01", "gates": [{}]}'])
def test_a_result_that_cannot_be_read_is_passed_over(tmp_path: Path, text: str) -> None:
    now = datetime.now(timezone.utc)
    gated(tmp_path, "PASS", "version 1", "version 2", now)
    damaged = tmp_path / "20260101-000000-ab-doubled"
    damaged.mkdir()
    (damaged / RESULT).write_text(text)
    assert past_verdicts(tmp_path, "doubled")[2].verdict == "PASS"


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_an_unknown_model(three: Sandbox) -> None:
    assert three.error("versions", "doubed") == (
        "Error: doubed: is not in model_repository\n  hint: did you mean 'doubled'?\n"
    )


def test_a_repository_without_models(sandbox: Sandbox) -> None:
    assert "hint: build something first: modelwright build" in sandbox.error("versions", "doubled")


DAMAGE = {
    "cut short": ('{"schema": 2, "modelwright": ', "damaged: not JSON, or cut short"),
    "of a newer Modelwright": (
        '{"schema": 99, "modelwright": "9.0.0"}',
        "schema 99: written by a newer Modelwright (9.0.0)",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_version_that_cannot_be_read_hides_no_other(three: Sandbox, case: str) -> None:
    text, problem = DAMAGE[case]
    (three.root / "model_repository/doubled/2/manifest.json").write_text(text)
    result = three.cli("versions", "doubled")
    assert result.exit_code == 0
    assert problem in result.output
    assert states(three) == {3: "served", 2: "not served, cannot be read", 1: "not served"}


def test_a_config_that_cannot_be_read_is_told(three: Sandbox) -> None:
    (three.root / "model_repository/doubled/config.pbtxt").write_text("nonsense {")
    assert "Warning: model_repository/doubled/config.pbtxt: " in three.cli("versions", "doubled").output
    (three.root / "model_repository/doubled/config.pbtxt").unlink()
    assert "Warning: doubled: has no config.pbtxt, so no server loads it" in three.cli("versions", "doubled").output


def test_a_version_that_was_not_made_here(three: Sandbox) -> None:
    folder = three.root / "model_repository/doubled/7"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"x" * 1000)
    assert states(three)[7] == "served"
    other = found(three, 7)
    assert (other.digest, other.size_bytes, other.created, other.problem) == ("", 1000, None, "")
