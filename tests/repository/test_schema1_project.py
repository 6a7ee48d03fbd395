"""A project that was built when facts and manifests had schema 1: a build of today publishes nothing again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from modelwright import tools
from modelwright.build.store import Store
from modelwright.digest import canonical, list_tree, sha256
from modelwright.errors import StoreError
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.made import Made
from modelwright.facts.verified import Verified
from modelwright.kinds.prebuilt import PrebuiltSource
from tests.conftest import ROOT, Sandbox

DATA = Path(__file__).parent / "data/built_with_schema1"


@pytest.fixture
def built(tmp_path: Path) -> Sandbox:
    """The project as it was left, as if the libraries that are installed here had built it."""
    root = tmp_path / "built_before"
    for part in ("builders", "model_repository"):
        shutil.copytree(DATA / part, root / part)
    shutil.copy(DATA / "modelwright.toml", root)
    shutil.copytree(ROOT / "templates", root / "templates")
    for step in (DATA / "store").iterdir():
        record = json.loads((step / "artifact.json").read_text())
        for tool in record["payload"]["tools"]:
            record["payload"]["tools"][tool] = tools.python() if tool == "python" else tools.version(tool)
        folder = root / ".modelwright/store" / artifact_folder(record["payload"])
        shutil.copytree(step, folder)
        (folder / "artifact.json").write_text(json.dumps(record))
    return Sandbox(root)


def artifact_folder(key_content: object) -> str:
    key = sha256(canonical(key_content))
    return f"{key[:2]}/{key}"


def state(root: Path) -> dict[str, tuple[int, int, bytes]]:
    files = list_tree(root)
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for name, path in files.items()}


def test_nothing_is_published_again(built: Sandbox) -> None:
    """Steps whose function does more than it did run once more: what was published before must pass now, too."""
    before = state(built.project.repository)
    plan = built.cli("plan").output
    assert "run   doubled onnx: modelwright does this step differently now" in plan
    assert "samples" not in plan
    outcome = built.build()["doubled"]
    assert (outcome.status, outcome.ran, outcome.version) == ("unchanged", True, 1)
    assert outcome.compared_with is ComparedWith.ITSELF
    assert outcome.metrics == {"accuracy": 1.0}
    assert built.cli("plan").output == "3 steps: 0 to run, 3 up to date\n"
    assert state(built.project.repository) == before


def test_a_change_is_published_with_old_facts(built: Sandbox) -> None:
    """The samples stay as they are, so their step is taken from the old store."""
    yaml = built.root / "builders/doubled/model.yaml"
    yaml.write_text(yaml.read_text().replace("min: 0.9", "min: 0.8").replace("max_batch_size: 8", "max_batch_size: 4"))
    assert built.build()["doubled"].status == "config"
    (built.root / "model_repository/doubled/1").rename(built.root / "moved")
    assert built.build()["doubled"].version == 2
    new, old = built.manifest("doubled", 2), json.loads((built.root / "moved/manifest.json").read_text())
    assert new.version_digest == old["payload"]
    assert new.made.signature is not None
    assert [step.key_content.step for step in new.lineage] == ["samples", "onnx_file", "verify"]


def test_a_damaged_manifest_fails_its_model_and_names_the_field(built: Sandbox) -> None:
    path = built.repository.folder("doubled", 1) / "manifest.json"
    data = json.loads(path.read_text())
    del data["lineage"][1]["output"]
    path.write_text(json.dumps(data))
    output = built.error()
    assert "model_repository/doubled/1/manifest.json: damaged: lineage[1].output: missing" in output
    assert "hint: restore the file" in output


# --- adoption ---------------------------------------------------------------------------------------------------------


def test_golden_samples_of_schema_1_are_adopted(built: Sandbox, sandbox: Sandbox) -> None:
    assert sandbox.cli("adopt", str(built.project.repository)).exit_code == 0
    source = sandbox.builders["doubled"].spec.source
    assert isinstance(source, PrebuiltSource)
    assert source.golden[1].batch == 4
    assert source.golden[1].tolerance["y"].atol == 1e-4


def test_golden_samples_of_a_damaged_manifest_stay_behind(built: Sandbox, sandbox: Sandbox) -> None:
    path = built.repository.folder("doubled", 1) / "manifest.json"
    path.write_text(path.read_text().replace('"batch": 4', '"batch": "four"'))
    output = sandbox.cli("adopt", str(built.project.repository)).output
    assert "1/golden.npz" in output
    assert "manifest.json: damaged: verification.golden.batch" in output
    assert not (sandbox.root / "builders/doubled/1/golden.npz").exists()


# --- the store --------------------------------------------------------------------------------------------------------


def artifact_json(built: Sandbox, step: str) -> tuple[str, Path]:
    for path in built.project.store.glob("*/*/artifact.json"):
        if json.loads(path.read_text())["payload"]["step"] == step:
            return path.parent.name, path
    raise AssertionError(step)


def test_facts_of_schema_1_are_read(built: Sandbox) -> None:
    store = Store(built.project.store)
    verified = store.get(artifact_json(built, "verify")[0])
    made = store.get(artifact_json(built, "onnx_file")[0])
    assert verified is not None
    assert made is not None
    assert verified.facts_as(Verified).compared_with is ComparedWith.ITSELF
    signature = made.facts_as(Made).signature
    assert signature is not None
    assert signature.inputs[0].dims == ("batch", 2)


def test_facts_of_a_newer_schema_are_made_again(built: Sandbox) -> None:
    key, path = artifact_json(built, "verify")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    assert Store(built.project.store).get(key) is None


def test_damaged_facts_are_named(built: Sandbox) -> None:
    key, path = artifact_json(built, "verify")
    record = json.loads(path.read_text())
    record["facts"]["samples"] = "many"
    path.write_text(json.dumps(record))
    artifact = Store(built.project.store).get(key)
    assert artifact is not None
    with pytest.raises(StoreError, match=r"artifact.json: facts: damaged: samples: .*'many'(?s:.*)hint: remove"):
        artifact.facts_as(Verified)
