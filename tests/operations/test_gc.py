"""`modelwright gc`: what goes, what stays and why, and that a kill loses nothing."""

from __future__ import annotations

import json
import shutil

from modelwright.api import Project
from modelwright.digest import list_tree
from modelwright.operations.change import How
from modelwright.operations.gc import gc
from modelwright.remotes.record import write_record
from tests.conftest import Sandbox
from tests.operations.conftest import publish_pipeline
from tests.repository.killing import in_child


def collect(sandbox: Sandbox, *arguments: str) -> str:
    result = sandbox.cli("gc", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def places(sandbox: Sandbox, model: str = "doubled") -> tuple[list[int], list[int]]:
    """(the versions in the repository, the retired ones)"""
    return sandbox.repository.versions(model), sandbox.repository.retired(model)


def why_not(sandbox: Sandbox, keep: int = 0) -> dict[tuple[str, int], str]:
    """{(model, version): why it stays} of the versions that are old enough to go."""
    found = Project(sandbox.project).gc(keep, dry_run=True)
    return {(item.model, item.version): item.why for item in found.stays}


def test_old_versions_are_retired_first_and_deleted_by_the_next_one(three: Sandbox) -> None:
    assert collect(three, "--keep", "1") == (
        "doubled: version 1 leaves the repository and is kept as retired\n"
        "doubled: version 2 leaves the repository and is kept as retired\n"
    )
    assert places(three) == ([3], [1, 2])
    assert "doubled: version 1 was retired, and is deleted: " in collect(three, "--keep", "1")
    assert places(three) == ([3], [2])
    assert collect(three, "--keep", "1") == "Nothing to do.\n"


def test_a_dry_run_says_the_same_and_does_nothing(three: Sandbox) -> None:
    before = three.published()
    planned = collect(three, "--keep", "0", "--dry-run")
    assert (three.published(), places(three)) == (before, ([1, 2, 3], []))
    done = collect(three, "--keep", "0")
    assert planned == done + "Nothing was changed: this was a dry run.\n"
    assert done.endswith("doubled: version 3 stays: served\n")


def test_json_has_what_goes_and_what_stays(three: Sandbox) -> None:
    data = json.loads(collect(three, "--keep", "0", "--json"))
    assert [item["version"] for item in data["retired"]] == [1, 2]
    assert [(item["version"], item["why"]) for item in data["stays"]] == [(3, "served")]
    assert (data["done"], data["freed_bytes"]) == (True, 0)
    again = json.loads(collect(three, "--keep", "0", "--json"))
    assert again["freed_bytes"] == sum(item["size_bytes"] for item in again["deleted"]) > 0


def test_a_number_that_was_deleted_is_not_used_again(three: Sandbox) -> None:
    three.cli("rollback", "doubled")
    collect(three, "--keep", "0")
    assert places(three) == ([2], [1])
    three.onnx_builder(factor=2.01)
    assert three.build()["doubled"].version == 4


def test_what_was_rolled_back_and_then_deleted_can_be_published_again(three: Sandbox) -> None:
    assert three.cli("rollback", "doubled").exit_code == 0
    collect(three, "--keep", "0")
    assert places(three) == ([2], [1])  # version 3 was retired before, and is deleted
    note = "version 3, which was the same, was rolled back, then deleted: modelwright restore doubled 3 lets a build"
    for _ in range(2):
        assert f"Not served: doubled: {note}" in three.cli("build").output
    result = three.cli("restore", "doubled", "3")
    assert result.output == "doubled: version 3 was deleted; builds may publish its content again, under a new number\n"
    assert three.build()["doubled"].version == 4


def test_what_is_served_or_promoted_stays(three: Sandbox) -> None:
    three.cli("promote", "doubled", "1")
    assert why_not(three) == {("doubled", 1): "promoted"}
    assert why_not(three, keep=2) == {("doubled", 1): "promoted"}


def test_what_a_pipeline_needs_stays_and_what_its_older_versions_were_verified_with(three: Sandbox) -> None:
    publish_pipeline(three, {1: 1, 2: 2})
    found = Project(three.project).gc(0, "doubled", dry_run=True)
    assert {item.version: item.why for item in found.stays} == {
        1: "both version 1 was verified with it",
        2: "needed by both",
        3: "served",
    }
    assert why_not(three, keep=1) == {("doubled", 2): "needed by both"}  # the pipeline's version 1 goes, too


def test_what_a_remote_has_stays(three: Sandbox) -> None:
    collect(three, "--keep", "0")
    write_record(three.project.history, "s3://bucket/models", {"doubled": {1: "digest"}})
    assert why_not(three)["doubled", 1] == "on s3://bucket/models"
    collect(three, "--keep", "0")
    assert places(three) == ([3], [1])


def test_notes_of_remotes_that_cannot_be_read_stop_it(three: Sandbox) -> None:
    (three.project.history).mkdir(exist_ok=True)
    (three.project.history / "remotes.json").write_text("{")
    assert "remotes.json: cannot be read" in three.error("gc", "--keep", "0")


def test_what_was_not_made_here_or_cannot_be_read_stays(three: Sandbox) -> None:
    (three.root / "model_repository/doubled/0").mkdir()
    (three.root / "model_repository/doubled/0/model.onnx").write_bytes(b"x")
    (three.root / "model_repository/doubled/1/manifest.json").write_text("{")
    found = why_not(three)
    assert found["doubled", 0] == "not made here"
    assert found["doubled", 1].startswith("cannot be read: ")


def test_only_the_named_models_are_looked_at(three: Sandbox) -> None:
    three.doubled_versions(2, model="other")
    collect(three, "--keep", "0", "other")
    assert places(three, "other") == ([2], [1])
    assert places(three) == ([1, 2, 3], [])


def test_an_unknown_name(three: Sandbox) -> None:
    assert "Error: doubed: is not in model_repository\n  hint: did you mean 'doubled'?" in three.error(
        "gc", "--keep", "1", "doubled", "doubed"
    )


def test_kill_9_at_any_file_operation_loses_nothing_that_stays(three: Sandbox) -> None:
    """Version 1 is deleted, version 2 is retired, version 3 stays; and the next gc goes on where this one ended."""
    collect(three, "--keep", "2")
    whole, killed = three.root, three.root.parent / "killed"

    def collect_in(sandbox: Sandbox) -> None:
        gc(sandbox.project, 0, [], How())

    shutil.copytree(whole, killed, symlinks=True)
    operations = in_child(lambda: collect_in(Sandbox(killed))).operations
    assert places(Sandbox(killed)) == ([3], [2])
    assert operations > 20
    served = {name: digest for name, digest in three.published().items() if "/3/" in name}
    for point in range(1, operations + 1):
        shutil.rmtree(killed)
        shutil.copytree(whole, killed, symlinks=True)
        sandbox = Sandbox(killed)
        assert in_child(lambda: collect_in(sandbox), kill_at=point).killed  # noqa: B023
        assert served.items() <= sandbox.published().items()
        live, retired = places(sandbox)
        assert {2, 3} <= {*live, *retired}, f"killed at operation {point} of {operations}"
        assert all(
            sandbox.repository.damage("doubled", number, retired=number in retired) == [] for number in live + retired
        )
        assert sandbox.cli("history").exit_code == 0
        collect_in(sandbox)
        assert places(sandbox)[0] == [3]
        assert places(sandbox)[1] in ([2], [])
        assert list_tree(sandbox.repository.staging) == {}


def test_a_model_that_cannot_be_read_keeps_no_other_from_being_cleaned(three: Sandbox) -> None:
    for name in ("config", "manifest"):
        shutil.copytree(three.project.repository / "doubled", three.project.repository / name)
    (three.project.repository / "config/config.pbtxt").write_text("no config {")
    (three.project.repository / "manifest/3/manifest.json").write_text("{")
    output = collect(three, "--keep", "1")
    assert "doubled: version 1 leaves the repository and is kept as retired" in output
    assert places(three) == ([3], [1, 2])
    assert [three.repository.versions(name) for name in ("config", "manifest")] == [[1, 2, 3], [1, 2, 3]]


def test_the_ledger_knows_the_last_line_of_the_journal(three: Sandbox) -> None:
    """Else nobody would see that the lines about what was deleted were cut off."""
    for _ in range(2):
        collect(three, "--keep", "0")
        assert three.repository.ledger().journal == three.repository.journal.head()
