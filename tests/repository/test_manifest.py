"""Manifests as they are read: today's, older ones, a newer one, damaged ones and those of other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelwright.errors import RepositoryError
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.made import Made, OnnxSignature, OnnxTensor, TensorRtBuild
from modelwright.facts.part import SCHEMA
from modelwright.facts.verified import GoldenComparison, Verified
from modelwright.project.spec import Tolerance
from modelwright.repository.manifest import Manifest, is_ours, read, read_ours
from tests.repository.manifests import a_manifest

SCHEMA_1 = Path(__file__).parent / "data/manifests/schema1"
OLD = sorted(path.stem for path in SCHEMA_1.glob("*.json"))
WORDS = {
    "its source": ComparedWith.SOURCE,
    "its golden samples": ComparedWith.GOLDEN_SAMPLES,
    "itself": ComparedWith.ITSELF,
    "nothing": ComparedWith.NOTHING,
}


def old(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((SCHEMA_1 / f"{name}.json").read_text())
    return data


def read_from(path: Path) -> Manifest:
    manifest = read(path)
    assert manifest is not None
    return manifest


# --- schemas ----------------------------------------------------------------------------------------------------------


def test_the_old_manifests_cover_every_source_kind_and_comparison() -> None:
    made = {fact for name in OLD for fact in old(name)["made"]}
    assert made == {"signature", "requirements", "dependencies_left_out", "members", "prebuilt"}
    assert {old(name)["verification"]["compared_with"] for name in OLD} == WORDS.keys()


@pytest.mark.parametrize("name", OLD)
def test_a_manifest_of_schema_1_keeps_all_that_it_says(name: str) -> None:
    raw, manifest = old(name), read_from(SCHEMA_1 / f"{name}.json")
    assert manifest.schema_ == SCHEMA
    for field in ("model", "version", "description", "modelwright"):
        assert getattr(manifest, field) == raw.pop(field)
    assert manifest.created.isoformat() == raw.pop("created")
    assert manifest.target.as_json() == raw.pop("target")
    assert manifest.source.as_json() == raw.pop("source")
    assert manifest.version_digest == raw.pop("payload")
    assert {file: record.as_json() for file, record in manifest.files.items()} == raw.pop("files")
    assert manifest.tensors.as_json() == raw.pop("tensors")
    assert manifest.metrics == raw.pop("metrics")
    check_made(manifest.made, raw.pop("made"))
    check_verification(manifest.verification, raw.pop("verification"))
    for step, entry in zip(manifest.lineage, raw.pop("lineage"), strict=True):
        assert step.key_content.as_json() == entry.pop("payload")
        assert step.as_json().keys() - {"key_content"} == entry.keys()
        assert all(getattr(step, field) == value for field, value in entry.items())
    assert raw == {"schema": 1}


def check_made(made: Made, raw: dict[str, Any]) -> None:
    assert (made.signature.as_json() | {"external": []} if made.signature else None) == raw.get("signature")
    assert list(made.requirements) == raw.get("requirements", [])
    assert list(made.dependencies_left_out) == raw.get("dependencies_left_out", [])
    assert made.composing_models == raw.get("members", {})
    assert made.prebuilt == raw.get("prebuilt", False)


def check_verification(verification: Verified, raw: dict[str, Any]) -> None:
    assert verification.compared_with is WORDS[raw["compared_with"]]
    assert verification.max_abs_error == raw["max_abs_error"]
    assert verification.samples == raw["samples"]
    assert verification.reason == raw.get("reason", "")
    assert (verification.golden.as_json() if verification.golden else None) == raw.get("golden")


@pytest.mark.parametrize("name", OLD)
def test_a_manifest_that_is_written_again_says_the_same(tmp_path: Path, name: str) -> None:
    manifest = read_from(SCHEMA_1 / f"{name}.json")
    path = tmp_path / "manifest.json"
    path.write_text(manifest.text())
    assert json.loads(path.read_text())["schema"] == SCHEMA
    assert read(path) == manifest


def test_every_fact_survives_the_file(tmp_path: Path) -> None:
    tensor = OnnxTensor(name="x", dtype="FP32", dims=("batch", 2, -1))
    made = Made(
        signature=OnnxSignature(inputs=(tensor,), outputs=(tensor,), opset=20, ir_version=9, external=("w.data",)),
        tensorrt=TensorRtBuild(version="10.13.0", compute_capability="9.0", version_compatible=True),
        composing_models={"first": "d"},
        requirements=("tokenizers==0.23.3",),
        dependencies_left_out=("a needs b",),
        prebuilt=True,
        details={"trees": 100, "classes": ["a", "b"], "depth": None},
    )
    verification = Verified(
        compared_with=ComparedWith.GOLDEN_SAMPLES,
        reason="r",
        max_abs_error={"y": 1e-7},
        samples=3,
        metrics={"accuracy": 1.0},
        golden=GoldenComparison(batch=0, tolerance={"y": Tolerance(atol=0.0)}),
    )
    manifest = a_manifest(made=made, verification=verification)
    (tmp_path / "m.json").write_text(manifest.text())
    assert read(tmp_path / "m.json") == manifest


def test_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({"schema": SCHEMA + 1, "modelwright": "9.8.7", "anything": "else"}))
    with pytest.raises(RepositoryError) as caught:
        read(path)
    for part in (str(path), f"schema {SCHEMA + 1}", "newer Modelwright", "9.8.7"):
        assert part in caught.value.message
    assert "update" in caught.value.hint


def test_fields_that_a_later_version_added_are_passed_over(tmp_path: Path) -> None:
    manifest = a_manifest()
    data: Any = manifest.as_json()
    for part in (data, data["target"], data["source"], data["made"], data["verification"], data["tensors"]):
        part["added_later"] = {"by": "somebody"}
    (tmp_path / "m.json").write_text(json.dumps(data))
    assert read(tmp_path / "m.json") == manifest


# --- damage -----------------------------------------------------------------------------------------------------------

WHOLE = (SCHEMA_1 / "digits.json").read_bytes()
Change = Callable[[dict[str, Any]], object]
NOT_JSON: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "blank": (b" \n", "the file is empty"),
    "cut short": (WHOLE[:2000], "not JSON, or cut short"),
    "not UTF-8": (WHOLE.replace(b"Handwritten", b"\xff\xfe"), "not UTF-8 at byte "),
    "a list": (b"[1, 2]", "expected a JSON object, got [1, 2]"),
    "null": (b"null", "expected a JSON object, got null"),
    "nested without end": (b"[" * 100_000, "not JSON"),
}
FIELDS: dict[str, tuple[Change, str]] = {
    "no schema": (lambda m: m.pop("schema"), "schema: missing"),
    "a schema in words": (lambda m: m.update(schema="1"), "schema: expected a whole number from 1, got '1'"),
    "schema 0": (lambda m: m.update(schema=0), "schema: expected a whole number from 1, got 0"),
    "a field less": (lambda m: m.pop("tensors"), "tensors: missing"),
    "no digest": (lambda m: m.pop("payload"), "version_digest: missing"),
    "a step without its key": (lambda m: m["lineage"][2].pop("key"), "lineage[2].key: missing"),
    "a step's key content": (
        lambda m: m["lineage"][0]["payload"].pop("tools"),
        "lineage[0].key_content.tools: missing",
    ),
    "text for a number": (
        lambda m: m["files"]["model.onnx"].update(size_bytes="12"),
        "files.model.onnx.size_bytes: input should be a valid integer, got '12'",
    ),
    "a number for text": (lambda m: m.update(model=3), "model: input should be a valid string, got 3"),
    "a list for files": (lambda m: m.update(files=[]), "files: input should be a valid dictionary"),
    "text for made": (lambda m: m.update(made="x"), "made: "),
    "null for verification": (lambda m: m.update(verification=None), "verification: "),
    "text for lineage": (lambda m: m.update(lineage="x"), "lineage: "),
    "an unknown comparison": (
        lambda m: m["verification"].update(compared_with="the moon"),
        "verification.compared_with: input should be 'source'",
    ),
    "no date": (lambda m: m.update(created="yesterday"), "created: "),
    "a metric in words": (lambda m: m["metrics"].update(accuracy="good"), "verification.metrics.accuracy: "),
    "a dimension": (
        lambda m: m["made"]["signature"]["inputs"][0]["dims"].insert(0, None),
        "made.signature.inputs[0].dims[0]: ",
    ),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_a_file_that_is_no_manifest_at_all_is_named(tmp_path: Path, case: str) -> None:
    data, problem = NOT_JSON[case]
    (tmp_path / "manifest.json").write_bytes(data)
    check_refused(tmp_path / "manifest.json", problem)


@pytest.mark.parametrize("case", FIELDS)
def test_a_damaged_field_is_named(tmp_path: Path, case: str) -> None:
    change, problem = FIELDS[case]
    data = json.loads(WHOLE)
    change(data)
    (tmp_path / "manifest.json").write_text(json.dumps(data))
    check_refused(tmp_path / "manifest.json", problem)


def check_refused(path: Path, problem: str) -> None:
    with pytest.raises(RepositoryError) as caught:
        read(path)
    assert caught.value.message.startswith(f"{path}: damaged: {problem}")
    assert "restore the file" in caught.value.hint


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(RepositoryError, match=r"manifest.json: cannot be read: Is a directory"):
        read(tmp_path / "manifest.json")


# --- whose it is ------------------------------------------------------------------------------------------------------


def test_no_file_is_no_manifest(tmp_path: Path) -> None:
    assert read(tmp_path / "manifest.json") is None
    assert read_ours(tmp_path / "manifest.json") is None
    assert not is_ours(tmp_path / "manifest.json")


@pytest.mark.parametrize("data", [b"{}", b"[1]", b'{"schema": 2}', b'{"name": "of another tool"}'])
def test_a_file_of_another_tool_is_not_ours(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    assert not is_ours(tmp_path / "manifest.json")
    assert read_ours(tmp_path / "manifest.json") is None


def test_a_damaged_one_is_ours_and_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"schema": 2, "modelwright": "0.1.0"}')
    assert is_ours(path)
    with pytest.raises(RepositoryError, match="model: missing"):
        read_ours(path)


def test_what_is_not_json_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(WHOLE[:2000])
    assert not is_ours(path)
    with pytest.raises(RepositoryError, match="cut short"):
        read_ours(path)
