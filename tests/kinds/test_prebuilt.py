"""source.kind prebuilt: versions under their own numbers, verified as far as there is something to verify by."""

from __future__ import annotations

import json
import re
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelwright.build import build as engine
from modelwright.cli.progress import Silent
from modelwright.config.render import parse
from modelwright.digest import list_tree, sha256, sha256_file
from modelwright.facts.compared_with import ComparedWith
from modelwright.operations.adopt import adopt
from modelwright.operations.replay import replay
from modelwright.project.spec import parse_spec
from modelwright.repository.repository import Change
from modelwright.server.local import running
from modelwright.triton.client import Client, connect
from modelwright.triton.layout import CONFIG, LEDGER, MANIFEST, SBOM
from modelwright.triton.messages import differences
from modelwright.triton.model_config_pb2 import schema
from modelwright.triton.reasons import is_missing_here
from modelwright.variants.registry import LOOKUPS
from tests.conftest import DATA_PY, Recorder, Sandbox, doubling_onnx
from tests.operations.foreign_repository import MODELS, classifier, hand_made, plus
from tests.repository.killing import in_child
from tests.repository.manifests import a_manifest
from tests.server.models import shared_environment

SHA = "0" * 64
PLAN = b"ftrt" + bytes(20) + bytes([11, 0, 0, 1]) + bytes(64)  # of the TensorRT that release 26.07 may have


@pytest.fixture
def adopted(sandbox: Sandbox, tmp_path: Path) -> Sandbox:
    """A project with the classifier of a hand-made repository: versions 3 and 7."""
    classifier(tmp_path / "existing")
    adopt(sandbox.project, tmp_path / "existing")
    return sandbox


def with_unknown_operator(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nonsense"
    onnx.save(model, path)


def edit(sandbox: Sandbox, model: str, old: str, new: str) -> None:
    path = sandbox.root / "builders" / model / "model.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# --- the spec ---------------------------------------------------------------------------------------------------------

SPECS: dict[str, tuple[dict[str, Any], str]] = {
    "no version": ({"versions": {}}, "at least 1 item"),
    "a version that is none": ({"versions": {"v1": {}}}, "a version is a whole number from 0"),
    "leading zeros": ({"versions": {"03": {}}}, "a version is a whole number from 0"),
    "a negative version": ({"versions": {-1: {}}}, "a version is a whole number from 0"),
    "a version that is true": ({"versions": {True: {}}}, "a version is a whole number from 0"),
    "a version beyond 64 bits": ({"versions": {2**63: {}}}, "a version is a whole number from 0"),
    "a path that leads out": ({"versions": {1: {"../x": SHA}}}, "leaves the builder's folder"),
    "a path in other words": ({"versions": {1: {"a//b": SHA}}}, "write 'a//b' as 'a/b'"),
    "a digest that is none": ({"versions": {1: {"x": "abc"}}}, "64 lower-case hexadecimal digits"),
    "our manifest": ({"versions": {1: {"manifest.json": SHA}}}, "Modelwright writes a file of this name itself"),
    "our samples": ({"versions": {1: {"golden.npz": SHA}}}, "Modelwright writes a file of this name itself"),
    "the config": ({"versions": {1: {}}, "files": {"config.pbtxt": SHA}}, "config.pbtxt: is no file of its own"),
    "a file in a version": ({"versions": {1: {}}, "files": {"1/x": SHA}}, "1/x: is no file of its own"),
    "samples of no version": ({"versions": {1: {}}, "golden": {2: {"sha256": SHA, "batch": 1}}}, "there is no such version"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPECS)
def test_a_source_that_is_refused(case: str) -> None:
    source, message = SPECS[case]
    with pytest.raises(ValueError, match=message):
        parse_spec({"name": "m", "source": {"kind": "prebuilt", **source}}, LOOKUPS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reference": "a:b"}, "reference: needs samples"),
        ({"evaluate": "a:b"}, "evaluate: needs samples"),
        ({"outputs": [{"name": "y", "dtype": "FP32", "shape": [2], "labels": "x"}]}, "labels of a prebuilt model"),
    ],
    ids=["reference", "evaluate", "labels"],
)
def test_fields_that_do_not_go_with_it(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_spec({"name": "m", "source": {"kind": "prebuilt", "versions": {1: {}}}, **fields}, LOOKUPS)


def test_other_kinds_still_need_samples(sandbox: Sandbox) -> None:
    sandbox.write("m", model_yaml="source: {kind: onnx, path: model.onnx}\n")
    assert "builders/m/model.yaml:1: samples: missing" in sandbox.error("build")


def test_a_misspelt_field_gets_a_suggestion(sandbox: Sandbox) -> None:
    sandbox.write("m", model_yaml="source:\n  kind: prebuilt\n  version: {1: {}}\n")
    assert "builders/m/model.yaml:3: source.version: unknown field\n  hint: did you mean 'versions'?" in sandbox.error()


def test_new_does_not_write_one(sandbox: Sandbox) -> None:
    assert "there is no scaffold for 'prebuilt'" in sandbox.cli("new", "m", "--kind", "prebuilt").output


# --- publishing under fixed numbers -----------------------------------------------------------------------------------


def test_versions_are_published_under_their_own_numbers(adopted: Sandbox, tmp_path: Path) -> None:
    outcome = adopted.build()["classifier"]
    assert (outcome.status, outcome.version, outcome.published) == ("new", 7, (3, 7))
    assert adopted.repository.versions("classifier") == [3, 7]
    original = {name: sha256_file(path) for name, path in list_tree(tmp_path / "existing").items()}
    found = adopted.published()
    made = {"classifier/config.pbtxt", *(f"classifier/{n}/{name}" for n in (3, 7) for name in (MANIFEST, SBOM))}
    assert found.keys() == original.keys() | made
    assert {name: digest for name, digest in found.items() if name not in made} == {
        name: digest for name, digest in original.items() if name not in made
    }


def test_the_config_is_the_message_that_it_was(adopted: Sandbox, tmp_path: Path) -> None:
    adopted.build()
    original = parse((tmp_path / "existing/classifier/config.pbtxt").read_text(), "original")
    assert list(differences(original, parse(adopted.config("classifier"), "rendered"))) == []


def test_a_config_without_a_name_is_rendered_without_one(sandbox: Sandbox, tmp_path: Path) -> None:
    plus(tmp_path / "existing")
    adopt(sandbox.project, tmp_path / "existing")
    sandbox.build()
    assert parse(sandbox.config("plus"), "rendered").name == ""


def test_an_empty_config_is_rendered_as_an_empty_message(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = classifier(tmp_path / "existing")
    (folder / "config.pbtxt").unlink()
    adopt(sandbox.project, tmp_path / "existing")
    sandbox.build()
    assert parse(sandbox.config("classifier"), "rendered") == schema().ModelConfig()


def test_a_second_build_does_nothing(adopted: Sandbox) -> None:
    adopted.build()
    recorder = Recorder()
    before = adopted.published()
    outcome = adopted.build(listener=recorder)["classifier"]
    assert (outcome.status, outcome.published, recorder.ran) == ("unchanged", (), [])
    assert adopted.published() == before
    assert adopted.cli("build").output.startswith("Nothing to do: 1 model up to date")


def test_the_manifest_says_that_nothing_was_compared(adopted: Sandbox) -> None:
    result = adopted.cli("build")
    assert re.search(r"^classifier  3, 7     new  \d+ B  not compared  -", result.output, re.MULTILINE), result.output
    for number in (3, 7):
        manifest = adopted.manifest("classifier", number)
        assert manifest.version == number
        assert manifest.verification.compared_with is ComparedWith.NOTHING
        assert manifest.files.keys() == {"model.onnx", SBOM}


def test_a_new_version_is_added_beside_the_others(adopted: Sandbox) -> None:
    adopted.build()
    before = adopted.published()
    folder = adopted.root / "builders/classifier/9"
    folder.mkdir()
    doubling_onnx(folder / "model.onnx", 9.0)
    edit(adopted, "classifier", "  files:", f"    9: {{model.onnx: {sha256_file(folder / 'model.onnx')}}}\n  files:")
    outcome = adopted.build()["classifier"]
    assert (outcome.status, outcome.published) == ("new", (9,))
    assert before.items() <= adopted.published().items()
    assert adopted.repository.ledger().versions == {"classifier": 9}


def test_a_change_of_serving_replaces_the_config_alone(adopted: Sandbox) -> None:
    adopted.build()
    before = adopted.published()
    edit(adopted, "classifier", "max_queue_delay_microseconds: 100", "max_queue_delay_microseconds: 250")
    recorder = Recorder()
    assert adopted.build(listener=recorder)["classifier"].status == "config"
    assert recorder.ran == []
    changed = {name for name, digest in adopted.published().items() if before.get(name) != digest}
    assert changed == {"classifier/config.pbtxt"}


def test_a_file_beside_the_config_is_replaced_and_removed_with_its_entry(adopted: Sandbox) -> None:
    adopted.build()
    folder = adopted.root / "builders/classifier"
    before = sha256_file(folder / "labels.txt")
    (folder / "labels.txt").write_text("cow\nhen\n")
    edit(adopted, "classifier", before, sha256_file(folder / "labels.txt"))
    assert adopted.build()["classifier"].status == "config"
    published = adopted.root / "model_repository/classifier"
    assert (published / "labels.txt").read_text() == "cow\nhen\n"
    warmup = f"    warmup/x.bin: {sha256_file(folder / 'warmup/x.bin')}\n"
    edit(adopted, "classifier", warmup, "")
    edit(adopted, "classifier", "input_data_file: x.bin", "zero_data: true")
    assert adopted.build()["classifier"].status == "config"
    assert not (published / "warmup").exists()


def test_a_changed_file_is_an_error_that_names_it(adopted: Sandbox) -> None:
    with (adopted.root / "builders/classifier/7/model.onnx").open("ab") as file:
        file.write(b"more")
    message = adopted.error("build")
    assert "builders/classifier/model.yaml: source: 7/model.onnx is not what its digest says" in message


def test_a_file_that_is_gone_is_an_error_that_names_it(adopted: Sandbox) -> None:
    (adopted.root / "builders/classifier/labels.txt").unlink()
    assert "builders/classifier/model.yaml: source: there is no file 'labels.txt'" in adopted.error("build")


def test_a_published_number_is_not_used_for_another_content(adopted: Sandbox) -> None:
    adopted.build()
    folder = adopted.root / "builders/classifier/7"
    before = sha256_file(folder / "model.onnx")
    doubling_onnx(folder / "model.onnx", 8.0)
    edit(adopted, "classifier", before, sha256_file(folder / "model.onnx"))
    message = adopted.error("build")
    assert "builders/classifier/model.yaml: source.versions.7: version 7 is published, with other content" in message
    assert "hint: a number is never used twice" in message


def test_a_number_that_was_used_before_is_not_used_again(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.onnx_builder("classifier")
    for _ in range(3):
        sandbox.build()
        shutil.rmtree(sandbox.root / "model_repository/classifier")
    shutil.rmtree(sandbox.root / "builders/classifier")
    assert sandbox.repository.ledger().versions == {"classifier": 3}
    classifier(tmp_path / "existing")
    adopt(sandbox.project, tmp_path / "existing")
    message = sandbox.error("build")
    assert "source.versions.3: classifier had a version 3 before, which is not there now" in message
    assert sandbox.repository.versions("classifier") == []


def test_a_version_that_was_removed_can_come_back_as_it_was(adopted: Sandbox) -> None:
    adopted.build()
    before = {name: digest for name, digest in adopted.published().items() if not name.endswith("manifest.json")}
    shutil.rmtree(adopted.root / "model_repository/classifier/3")
    assert adopted.build()["classifier"].published == (3,)
    after = {name: digest for name, digest in adopted.published().items() if not name.endswith("manifest.json")}
    assert after == before


def test_other_kinds_go_on_above_the_fixed_numbers(adopted: Sandbox) -> None:
    adopted.build()
    shutil.rmtree(adopted.root / "builders/classifier")
    adopted.onnx_builder("classifier")
    assert adopted.build()["classifier"].version == 8
    assert adopted.repository.ledger().versions == {"classifier": 8}
    assert adopted.repository.taken("classifier", 7) == adopted.manifest("classifier", 7).version_digest


def test_what_lies_in_the_repository_already_is_taken_as_it_is(sandbox: Sandbox) -> None:
    repository = sandbox.project.repository
    classifier(repository)
    before = sandbox.published()
    adopt(sandbox.project, repository)
    outcome = sandbox.build()["classifier"]
    assert (outcome.status, outcome.version, outcome.published) == ("config", 7, ())
    changed = {name for name, digest in sandbox.published().items() if before.get(name) != digest}
    assert changed == {"classifier/config.pbtxt"}
    assert sandbox.build()["classifier"].status == "unchanged"


def test_kill_9_at_any_file_operation_of_publishing_leaves_all_versions_or_none(adopted: Sandbox) -> None:
    def publish() -> None:
        # The steps are made before: what is killed here is the publish, and what reserves its numbers.
        engine.build(adopted.project, [], Silent())

    adopted.build()
    whole = set(adopted.published())
    root = adopted.root / "model_repository"

    def start_again() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(adopted.root / ".modelwright/cache", ignore_errors=True)

    outcomes = set()
    for point in count(1):
        start_again()
        if not in_child(publish, kill_at=point).killed:
            break
        found = set(adopted.published())
        assert found in (set(), whole), f"killed at operation {point}"
        outcomes.add(bool(found))
        adopted.build()
        assert set(adopted.published()) == whole
    assert outcomes == {False, True}
    assert point > 20


def test_several_versions_and_files_of_any_size_become_visible_together(sandbox: Sandbox, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"data")
    manifest = a_manifest({"f": made})
    second = Change("m", 5, {"f": made}, manifest)
    sandbox.repository.publish(Change("m", 2, {"f": made}, manifest, {"config.pbtxt": b""}, {"lib/x": made}, (second,)))
    assert set(sandbox.published()) == {
        "m/2/f", "m/2/manifest.json", "m/5/f", "m/5/manifest.json", "m/config.pbtxt", "m/lib/x",
    }  # fmt: skip


def test_the_ledger_keeps_what_numbers_stand_for(sandbox: Sandbox) -> None:
    repository = sandbox.repository
    repository.reserve(["other"], fixed={"m": {3: "three", 7: "seven"}})
    repository.reserve(["m"])
    assert repository.ledger().versions == {"m": 8, "other": 1}
    assert [repository.taken("m", number) for number in (2, 3, 7, 8, 9)] == ["", "three", "seven", "", None]
    data = json.loads((sandbox.project.repository / LEDGER).read_text())
    assert {name: data[name] for name in ("versions", "fixed")} == {
        "versions": {"m": 8, "other": 1},
        "fixed": {"m": {"3": "three", "7": "seven"}},
    }


# --- ensembles --------------------------------------------------------------------------------------------------------


def test_a_member_that_is_no_model_of_the_project_is_an_error(sandbox: Sandbox, tmp_path: Path) -> None:
    hand_made(tmp_path / "existing")
    adopt(sandbox.project, tmp_path / "existing", ["chain", "plus"])
    message = sandbox.error("build", may_publish=("plus",))
    assert "serving.ensemble_scheduling.step: model_name 'classifier' is no model of this project" in message
    assert "hint: adopt it too" in message


def test_an_ensemble_waits_for_a_composing_model_that_failed(sandbox: Sandbox, tmp_path: Path) -> None:
    hand_made(tmp_path / "existing")
    adopt(sandbox.project, tmp_path / "existing")
    sandbox.write("plus", data_py="def samples():\n    raise RuntimeError('no')\n")
    path = sandbox.root / "builders/plus/model.yaml"
    path.write_text(path.read_text() + "samples: data:samples\n")
    statuses = {name: outcome.status for name, outcome in sandbox.build().items()}
    assert statuses == {"plus": "failed", "chain": "held", "classifier": "new", "counter": "new"}


def test_naming_a_member_builds_the_ensemble_too(sandbox: Sandbox, tmp_path: Path) -> None:
    hand_made(tmp_path / "existing")
    adopt(sandbox.project, tmp_path / "existing")
    assert sandbox.build("plus").keys() == {"chain", "classifier", "plus"}
    composing = sandbox.manifest("chain").made.composing_models
    assert composing == {
        "classifier": sandbox.manifest("classifier", 7).version_digest,
        "plus": sandbox.manifest("plus").version_digest,
    }


@pytest.mark.parametrize("serving", ["ensemble_scheduling: 3", "ensemble_scheduling: {step: 3}", "ensemble_scheduling: {step: [3]}"])  # fmt: skip
def test_a_malformed_ensemble_is_refused_by_its_field(sandbox: Sandbox, serving: str) -> None:
    sandbox.write("m", model_yaml=f"source: {{kind: prebuilt, versions: {{1: {{}}}}}}\nserving: {{{serving}}}\n")
    assert "builders/m/model.yaml: serving.ensemble_scheduling" in sandbox.error("build")


@pytest.mark.server
def test_an_ensemble_built_here_may_run_prebuilt_members(sandbox: Sandbox, tmp_path: Path) -> None:
    hand_made(tmp_path / "existing")
    adopt(sandbox.project, tmp_path / "existing", ["classifier", "plus"])
    sandbox.ensemble_builder(
        "both",
        """
        source:
          kind: ensemble
          steps:
            - {model_name: classifier, input_map: {x: x}, output_map: {y: middle}}
            - {model_name: plus, input_map: {x: middle}, output_map: {y: y}}
        inputs: [{name: x, dtype: FP32, shape: [2]}]
        outputs: [{name: y, dtype: FP32, shape: [2]}]
        samples: data:samples
        reference: data:reference
        serving: {max_batch_size: 8}
        """,
    )
    sandbox.write("both", data_py=DATA_PY + "\n\ndef reference(samples):\n    return {'y': samples['x'] * 5 + 1}\n")
    outcomes = sandbox.build()
    assert {name: outcome.error for name, outcome in outcomes.items()} == dict.fromkeys(outcomes)
    assert sandbox.manifest("both").verification.compared_with is ComparedWith.SOURCE
    digest = sandbox.manifest("classifier", 7).version_digest
    assert sandbox.manifest("both").made.composing_models["classifier"] == digest
    edit_ensemble = sandbox.root / "builders/both/model.yaml"
    edit_ensemble.write_text(edit_ensemble.read_text().replace("output_map: {y: middle}", "output_map: {z: middle}", 1))
    assert "steps[0].output_map: classifier has no tensor 'z'" in sandbox.error("build")


# --- verification -----------------------------------------------------------------------------------------------------


def with_samples(sandbox: Sandbox, more: str = "", data: str = "") -> None:
    sandbox.write("classifier", data_py=DATA_PY + data)
    path = sandbox.root / "builders/classifier/model.yaml"
    path.write_text(path.read_text() + "samples: data:samples\n" + more)


@pytest.mark.server
def test_with_samples_every_version_is_run_and_its_answers_are_kept(adopted: Sandbox) -> None:
    with_samples(adopted)
    outcome = adopted.build()["classifier"]
    assert (outcome.status, outcome.error) == ("new", None)
    for number, factor in ((3, 2), (7, 5)):
        manifest = adopted.manifest("classifier", number)
        assert manifest.verification.compared_with is ComparedWith.ITSELF
        with np.load(adopted.repository.folder("classifier", number) / "golden.npz") as golden:
            np.testing.assert_array_equal(golden["output/y"], golden["input/x"] * factor)
    result = adopted.cli("verify", "--json")
    assert {entry["verdict"] for entry in json.loads(result.output)} == {"ok"}, result.output
    edit(adopted, "classifier", "max_queue_delay_microseconds: 100", "max_queue_delay_microseconds: 250")
    recorder = Recorder()
    assert adopted.build(listener=recorder)["classifier"].status == "config"
    assert recorder.ran == []


@pytest.mark.server
def test_a_version_that_fails_its_gate_keeps_all_from_being_published(adopted: Sandbox) -> None:
    with_samples(adopted, "evaluate: data:evaluate\ngates: {accuracy: {min: 0.9}}\n")
    outcome = adopted.build()["classifier"]
    assert outcome.status == "failed"
    assert "accuracy is 0.125, the gate asks for at least 0.9" in str(outcome.error)
    assert adopted.published() == {}


@pytest.mark.server
def test_samples_for_a_backend_that_is_not_here_are_no_failure(adopted: Sandbox) -> None:
    with_samples(adopted)
    edit(adopted, "classifier", "backend: onnxruntime", "backend: fil")
    assert adopted.build()["classifier"].status == "new"
    verification = adopted.manifest("classifier", 7).verification
    assert verification.compared_with is ComparedWith.NOTHING
    assert verification.reason.startswith("not served here: Invalid argument: unable to find backend library")


@pytest.mark.server
def test_samples_for_a_model_that_does_not_load_are_one(adopted: Sandbox) -> None:
    with_samples(adopted)
    edit(adopted, "classifier", "data_type: TYPE_FP32, dims: [2], label", "data_type: TYPE_FP32, dims: [3], label")
    outcome = adopted.build()["classifier"]
    assert outcome.status == "failed"
    assert "classifier: verify: the server does not load classifier: " in str(outcome.error)


@pytest.mark.server
def test_samples_of_our_own_versions_are_checked_again_and_published_again(
    sandbox: Sandbox, sandbox_factory: Any
) -> None:
    sandbox.onnx_builder()
    sandbox.python_builder()
    sandbox.ensemble_builder()
    sandbox.build()
    sandbox.onnx_builder(factor=2.01)
    sandbox.build()
    other = sandbox_factory()
    assert other.cli("adopt", str(sandbox.project.repository)).exit_code == 0
    outcomes = other.build()
    assert {name: outcome.error for name, outcome in outcomes.items()} == dict.fromkeys(outcomes)
    assert {name: outcome.published for name, outcome in outcomes.items()} == {
        "both": (1, 2), "doubled": (1, 2), "plus_one": (1,),
    }  # fmt: skip
    for model in outcomes:
        for number in other.repository.versions(model):
            new, old = other.manifest(model, number), sandbox.manifest(model, number)
            kept = {name: file for name, file in old.files.items() if name not in (CONFIG, SBOM)}
            now = {name: file for name, file in new.files.items() if name != SBOM}
            assert (new.version_digest, now, new.tensors) == (old.version_digest, kept, old.tensors)
    compared = {f"{name} {number}": other.manifest(name, number).verification.compared_with for name, number in (("both", 1), ("both", 2), ("doubled", 1), ("doubled", 2))}  # fmt: skip
    assert compared == {
        "both 1": ComparedWith.NOTHING,
        "both 2": ComparedWith.GOLDEN_SAMPLES,
        "doubled 1": ComparedWith.GOLDEN_SAMPLES,
        "doubled 2": ComparedWith.GOLDEN_SAMPLES,
    }
    results = json.loads(other.cli("verify", "--json").output)
    verdicts = {(entry["model"], entry["version"], entry["verdict"]) for entry in results}
    assert verdicts == {
        ("both", 1, "superseded"), ("both", 2, "ok"), ("doubled", 1, "ok"), ("doubled", 2, "ok"), ("plus_one", 1, "ok"),
    }  # fmt: skip


@pytest.mark.server
def test_samples_that_are_answered_otherwise_stop_the_build(sandbox: Sandbox, sandbox_factory: Any) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    other = sandbox_factory()
    adopt(other.project, sandbox.project.repository)
    folder = other.root / "builders/doubled/1"
    before = sha256_file(folder / "model.onnx")
    doubling_onnx(folder / "model.onnx", 2.5)
    edit(other, "doubled", before, sha256_file(folder / "model.onnx"))
    outcome = other.build()["doubled"]
    assert outcome.status == "failed"
    assert "doubled: verify: 'y' differs by" in str(outcome.error)


PLAN_YAML = """
name: m
source:
  kind: prebuilt
  versions: {{1: {{model.plan: {sha}}}}}
serving:
  backend: tensorrt
  input: [{{name: x, data_type: TYPE_FP32, dims: [2]}}]
  output: [{{name: y, data_type: TYPE_FP32, dims: [2]}}]
"""
OTHER_PLANS = {
    "of an older TensorRT": (
        PLAN.replace(b"\x0b", b"\x0a"),
        "MW801: built with TensorRT 10.0.0.1; Triton 26.07 has 11.0.0",
    ),
    "that is a web page": (b"<html>404</html>", "MW803: it is a web page (HTML)"),
    "that is a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "source: '1/model.plan' is a Git LFS pointer, not the file\n  hint: git lfs pull",
    ),
}


@pytest.mark.parametrize("case", OTHER_PLANS)
def test_a_plan_that_the_release_does_not_load_is_not_published(sandbox: Sandbox, case: str) -> None:
    data, message = OTHER_PLANS[case]
    folder = sandbox.write("m", model_yaml=PLAN_YAML.format(sha=sha256(data)))
    (folder / "1").mkdir()
    (folder / "1/model.plan").write_bytes(data)
    assert message in sandbox.error()


# --- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_the_replay_says_that_a_model_loads_or_why_not(sandbox: Sandbox, tmp_path: Path) -> None:
    root = hand_made(tmp_path / "existing")
    elsewhere = 'backend: "tensorrt" default_model_filename: "model.onnx"'
    for name, backend in (("plan", elsewhere), ("wrong", 'backend: "onnxruntime"')):
        folder = classifier(tmp_path / name)
        shutil.copytree(folder, root / name)
        config = (folder / "config.pbtxt").read_text().replace('backend: "onnxruntime"', backend)
        (root / name / "config.pbtxt").write_text(config.replace('name: "classifier"', ""))
    for number in (3, 7):
        (root / f"plan/{number}/model.onnx").write_bytes(PLAN)
    with_unknown_operator(root / "wrong/7/model.onnx")  # which the linter does not see: it does not look into graphs
    shutil.copytree(root / "classifier", root / "bare")
    (root / "bare/config.pbtxt").unlink()  # the server completes it
    adopt(sandbox.project, root)
    sandbox.build()
    results = json.loads(sandbox.cli("verify", "--json").output)
    verdicts = {(entry["model"], entry["version"]): (entry["verdict"], entry["detail"]) for entry in results}
    assert {entry["verdict"] for entry in results if entry["model"] == "wrong"} == {"failed"}
    assert verdicts["bare", 3] == verdicts["chain", 1] == ("loads", "no golden samples to compare with")
    assert verdicts["plan", 7][0] == "not served here"
    assert "unable to find backend library for backend 'tensorrt'" in verdicts["plan", 7][1]
    shutil.rmtree(sandbox.root / "builders/wrong")
    shutil.rmtree(sandbox.root / "model_repository/wrong")
    result = sandbox.cli("build", "--replay")
    assert result.exit_code == 0, result.output
    assert "HTTP loads, gRPC loads" in result.output
    assert "HTTP not served here, gRPC not served here" in result.output
    assert sandbox.cli("build", "--replay").output.startswith("Nothing to do")


@pytest.mark.server
def test_a_version_that_does_not_fit_the_config_and_is_not_in_its_policy_is_no_failure(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    folder = classifier(tmp_path / "existing")
    (folder / "3/model.onnx").write_bytes(b"an older format")
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(config.replace("{ all { } }", "{ latest { num_versions: 1 } }"))
    adopt(sandbox.project, tmp_path / "existing")
    sandbox.build()
    results = json.loads(sandbox.cli("verify", "--json").output)
    assert {(entry["version"], entry["verdict"]) for entry in results} == {(3, "not served"), (7, "loads")}
    assert {entry["detail"].partition(";")[0] for entry in results if entry["version"] == 3} == {
        "its version_policy names others"
    }


def test_a_replay_needs_no_golden_samples_to_find_damage(adopted: Sandbox) -> None:
    adopted.build()
    with (adopted.repository.folder("classifier", 3) / "model.onnx").open("ab") as file:
        file.write(b"x")
    from modelwright.repository.versions import published

    assert adopted.repository.damage("classifier", 3) == ["model.onnx changed"]
    assert [item.version for item in published(adopted.repository)] == [3, 7]
    assert replay(adopted.repository, published(adopted.repository), []) == []


@pytest.mark.parametrize(
    ("reason", "lacking"),
    [
        ("Invalid argument: unable to find backend library for backend 'tensorrt', try specifying runtime", True),
        ("Not found: unable to load shared library: libtorch.so: cannot open shared object file", True),
        ("Invalid argument: instance group g of model m has kind KIND_GPU but no GPUs are available", True),
        ("Internal: ModuleNotFoundError: No module named 'torch'", True),
        ("batch_input: supported by the stock container's onnxruntime backend, but not by the local server", True),
        ("onnx runtime error: [ONNXRuntimeError] : 1 : FAIL : Load model failed", False),
        ("Internal: failed to open text file for read labels.txt: No such file or directory", False),
        ("'y' differs by 3.1e-02 from the source, allowed 1.0e-02", False),
    ],
)
def test_what_a_server_has_not_is_told_from_what_a_model_has_wrong(reason: str, lacking: bool) -> None:
    assert is_missing_here(reason) == lacking


# --- the original and the adopted, side by side -----------------------------------------------------------------------


def answers(client: Client, grpc: str) -> dict[str, Any]:
    x = np.array([[1, 2], [3, 4]], np.float32)
    found: dict[str, Any] = {"index": sorted((entry.name, entry.version, entry.state) for entry in client.index())}
    for name, version in (("classifier", "3"), ("classifier", "7"), ("plus", ""), ("chain", "")):
        found[f"{name} {version}"] = client.infer(name, {"x": x}, version)["y"].tolist()
        found[f"{name} {version} config"] = client.config(name)
    for name in ("classifier", "plus"):
        found[f"{name} labels"] = client.infer(name, {"x": x}, outputs=["y"], class_count=2)["y"].tolist()
    found["sums"] = sums(grpc)
    return found


def sums(address: str) -> list[int]:
    """Two sequences, interleaved, by NVIDIA's own client."""
    from tritonclient import grpc

    client = grpc.InferenceServerClient(address)
    found = []
    for step, value in enumerate((1, 10, 100)):
        for sequence in (5, 6):
            tensor = grpc.InferInput("x", [1, 1], "INT32")
            tensor.set_data_from_numpy(np.array([[value * sequence]], np.int32))
            answer = client.infer(
                "counter", [tensor], sequence_id=sequence, sequence_start=step == 0, sequence_end=step == 2
            )
            found.append(int(answer.as_numpy("sum")[0, 0]))
    client.close()
    return found


@pytest.mark.server
def test_the_adopted_repository_answers_as_the_original_does(sandbox: Sandbox, tmp_path: Path) -> None:
    root = hand_made(tmp_path / "existing")
    original = shutil.copytree(root, tmp_path / "served")  # a server writes __pycache__ beside Python models
    adopt(sandbox.project, root)
    outcomes = sandbox.build()
    assert {name: outcome.error for name, outcome in outcomes.items()} == dict.fromkeys(outcomes)
    assert len(outcomes) == len(MODELS)
    found = []
    for number, place in enumerate((original, sandbox.project.repository)):
        log = tmp_path / f"log{number}"
        with running(shared_environment(), place, log=log, models=["*"], stop_grace_s=0) as server:
            assert server.failures() == {}
            with connect(f"grpc://{server.grpc}") as client:
                found.append(answers(client, server.grpc))
    assert found[0] == found[1]
    assert found[1]["chain "] == [[3.0, 5.0], [7.0, 9.0]]
    assert found[1]["sums"] == [5, 6, 55, 66, 555, 666]
    assert found[1]["classifier labels"][0][0] == b"10.000000:1:dog"
