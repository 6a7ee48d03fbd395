"""`push`, `pull` and `diff-remote` as commands, with a folder as the remote: real models, built here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from modelwright.digest import list_tree, sha256_file
from modelwright.remotes.index import INDEX
from modelwright.remotes.record import copies
from modelwright.triton.layout import LEDGER
from tests.conftest import Sandbox, new_sandbox


def tree(root: Path) -> dict[str, str]:
    return {name: sha256_file(path) for name, path in list_tree(root).items() if name not in (LEDGER, INDEX)}


def test_a_repository_goes_to_a_folder_and_into_another_project(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    there = tmp_path / "srv"
    shown = sandbox.cli("push", str(there), "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert not there.exists()
    done = sandbox.cli("push", f"file://{there}")
    lines = done.output.splitlines()
    assert lines[1].split()[:5] == ["model", "uploads", "removes", "config", "serves"]
    assert lines[2].split()[:5] == ["doubled", "1", "-", "changes", "1"]
    assert lines[-1] == f"Serve it: tritonserver --model-repository={there}"
    assert tree(there) == sandbox.published()
    assert sandbox.cli("push", str(there)).output == f"Nothing to push: 1 model up to date at {there}.\n"
    assert sandbox.cli("diff-remote", str(there)).output.endswith(f"No difference: {there} holds what is here.\n")
    assert list(copies(sandbox.project.history)) == [("doubled", 1)]
    assert [event.what for event in sandbox.repository.journal.events()][-1] == "push"
    assert sandbox.repository.ledger().journal == sandbox.repository.journal.head()

    other = new_sandbox(tmp_path / "other")
    differs = other.cli("diff-remote", str(there))
    assert differs.exit_code == 1
    assert differs.output.splitlines()[1].split() == ["doubled", "-", "1*", "-", "version", "1,", "config"]
    pulled = other.cli("pull", str(there))
    assert pulled.exit_code == 0, pulled.output
    assert other.published() == sandbox.published()
    assert other.repository.damage("doubled", 1) == []
    assert other.cli("pull", str(there)).output == f"Nothing to pull: model_repository has what is at {there}.\n"


def test_a_new_version_follows_as_json(sandbox: Sandbox, tmp_path: Path) -> None:
    there = str(tmp_path / "srv")
    sandbox.onnx_builder()
    sandbox.build()
    sandbox.cli("push", there)
    sandbox.onnx_builder(factor=2.001)
    sandbox.build()
    data = json.loads(sandbox.cli("diff-remote", there, "--json").output)
    assert not data["same"]
    assert data["models"][0]["push"]["add"] == [2]
    pushed = json.loads(sandbox.cli("push", there, "doubled", "--json").output)
    assert [stage["stage"] for stage in pushed["stages"]] == ["hold", "manifests", "files", "switch"]
    assert pushed["models"][0]["served"] == [2]
    assert tree(Path(there)) == sandbox.published()


def test_bad_input(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    there = str(tmp_path / "srv")
    cases = {
        (
            "push",
            "s4://bucket/x",
        ): "s4://bucket/x: unknown scheme 's4'\n  hint: s3://, gs:// and az:// are known, file:// and plain paths",
        ("push", "s3://"): "s3://: names no bucket",
        ("push", "s3://a/../b"): "has an empty or dotted part",
        ("push", "s3://key:secret@bucket/x"): "credentials do not belong in a URL",
        ("push", "file://models"): "file://models: names no folder",
        ("push", there, "doubledd"): "doubledd: is not in model_repository\n  hint: did you mean 'doubled'?",
        ("pull", there, "doubled"): f"doubled: is not at {there}",
        ("diff-remote", there, "nothing"): f"nothing: is neither here nor at {there}",
        ("push", "gs://bucket/x", "--endpoint-url", "http://x"): "--endpoint-url is for s3:// alone",
        ("push", "s3://bucket/x", "--endpoint-url", "x:1"): "--endpoint-url x:1: is no URL",
    }
    for arguments, message in cases.items():
        assert message in sandbox.error(*arguments), arguments
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in sandbox.error("push", str(tmp_path / "file"))


def test_an_extra_that_is_missing_is_named(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    assert "pip install 'modelwright[gcs]'" in sandbox.error("push", "gs://bucket/models")


def test_a_model_that_was_not_made_here_is_left_out(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    root = sandbox.project.repository
    shutil.copytree(root / "doubled", root / "copied")
    result = sandbox.cli("push", str(tmp_path / "srv"))
    assert result.exit_code == 1
    assert "Left out: copied:" in result.output
    assert {name.partition("/")[0] for name in tree(tmp_path / "srv")} == {"doubled"}
