"""`modelwright diff`: two versions, part by part."""

from __future__ import annotations

import json

import pytest

from modelwright.api import Project
from tests.conftest import ONNX_YAML, Sandbox, doubling_onnx


def diff(sandbox: Sandbox, *arguments: str) -> str:
    result = sandbox.cli("diff", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def part(output: str, name: str) -> list[str]:
    """The lines of one part."""
    lines = output.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"{name} "))
    end = next((index for index in range(start + 1, len(lines)) if not lines[index].startswith(" ")), len(lines))
    return [line[11:] for line in lines[start:end]]


def test_what_differs_is_told_part_by_part(three: Sandbox) -> None:
    output = diff(three, "doubled", "1", "3")
    assert output.startswith("doubled: version 1 (live) and version 3 (live)\n\n")
    assert part(output, "signature") == ["the same"]
    assert part(output, "lineage") == ["onnx: data model.onnx changed", "verify: made from another model"]
    assert part(output, "files") == ["model.onnx changed, 111 bytes as before"]


def test_a_config_is_compared_as_it_was_published_with_each_version(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    doubling_onnx(folder / "model.onnx", 2.001)
    (folder / "model.yaml").write_text(ONNX_YAML.replace("max_batch_size: 8", "max_batch_size: 16"))
    sandbox.build()
    assert part(diff(sandbox, "doubled"), "config") == ["max_batch_size 8 → 16"]


def test_a_version_of_an_older_modelwright_has_no_config_of_its_own(three: Sandbox) -> None:
    (three.root / "model_repository/doubled/2/config.pbtxt").unlink()
    note = "(version 2 was published without one of its own: the one that is served now stands for it)"
    assert note in part(diff(three, "doubled", "2", "3"), "config")


def test_another_signature_is_told_by_tensor(sandbox: Sandbox) -> None:
    sandbox.doubled_versions(1)
    sandbox.widened()
    assert part(diff(sandbox, "doubled"), "signature") == [
        "input x: FP32 [2] → FP32 [3]",
        "output y: FP32 [2] → FP32 [3]",
    ]


def test_a_retired_version_is_compared_like_any_other(three: Sandbox) -> None:
    three.cli("retire", "doubled", "1")
    assert diff(three, "doubled", "1", "2").startswith("doubled: version 1 (retired) and version 2 (live)\n")


def test_the_newest_two_are_compared_where_none_is_named(three: Sandbox) -> None:
    found = Project(three.project).diff("doubled")
    assert (found.before.version, found.after.version) == (2, 3)
    one = Project(three.project).diff("doubled", 1)
    assert (one.before.version, one.after.version) == (1, 3)


def test_json_has_the_keys_of_steps_that_differ(three: Sandbox) -> None:
    data = json.loads(diff(three, "doubled", "--json"))
    lineage = {step["step"]: step for step in data["differences"]["lineage"]}
    assert set(lineage) == {"onnx", "verify"}
    assert all(len(set(step["keys"])) == 2 for step in lineage.values())
    assert data["before"]["created"] == three.manifest("doubled", 2).created.isoformat()


def test_versions_that_were_not_made_here_are_compared_by_their_files(three: Sandbox) -> None:
    for number, data in ((7, b"abc"), (8, b"abcd")):
        folder = three.root / f"model_repository/doubled/{number}"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(data)
    output = diff(three, "doubled", "7", "8")
    assert part(output, "manifest") == ["neither has one: how they were made is not known"]
    assert part(output, "files") == ["model.onnx 3 → 4 bytes"]
    assert part(diff(three, "doubled", "3", "7"), "manifest") == [
        "only version 3 has one: how it was made is not compared"
    ]


REFUSED = {
    "an unknown model": (["doubed"], "doubed: is not in model_repository\n  hint: did you mean 'doubled'?"),
    "an unknown version": (["doubled", "9"], "doubled: there is no version 9\n  hint: in the repository: 1, 2, 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there(three: Sandbox, case: str) -> None:
    arguments, message = REFUSED[case]
    assert message in three.error("diff", *arguments)


def test_a_single_version_has_nothing_to_be_compared_with(sandbox: Sandbox) -> None:
    sandbox.doubled_versions(1)
    assert sandbox.error("diff", "doubled") == (
        "Error: doubled: has no version below 1 to compare it with\n"
        "  hint: name the two: modelwright diff doubled A B; in the repository: 1\n"
    )


def test_a_damaged_manifest_is_named(three: Sandbox) -> None:
    path = three.root / "model_repository/doubled/2/manifest.json"
    path.write_text("{")
    assert f"Error: {path}: damaged: not JSON" in three.error("diff", "doubled")
