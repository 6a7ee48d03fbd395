"""What MLflow is told of a build: records, and what is in them. None of it needs MLflow."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from modelwright.charts.matrix import matrix_svg
from modelwright.digest import list_tree
from modelwright.errors import StepError, VerifyError
from modelwright.facts.training import TrainingRecord
from modelwright.steps.sources.mlflow import no_model
from modelwright.tracking.describe import BuiltModel, epochs, gates, metrics, params, tags
from modelwright.tracking.outbox import Outbox
from modelwright.tracking.published import put_published
from modelwright.tracking.record import BuildRecord, flat, key
from modelwright.verification.confusion import confusion_from
from tests.conftest import DATA_PY, ONNX_YAML, Sandbox
from tests.tracking.test_settings import with_tracking

CONFUSION_PY = (
    DATA_PY
    + """

def counted(infer):
    return {**evaluate(infer), "confusion": np.array([[3, 1], [0, 4]])}
"""
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "expected a square of whole numbers"),
        ([[1, 2]], "expected a square of whole numbers"),
        ([[1, 2], [3]], "expected a square of whole numbers"),
        ([[1, -2], [3, 4]], "expected a square of whole numbers"),
        ([[1.5]], "expected a square of whole numbers"),
        ([["a"]], "expected a square of whole numbers"),
        ([[float("nan")]], "expected a square of whole numbers"),
        ([[0] * 201] * 201, "at most 200 classes are kept, got 201"),
    ],
    ids=["None", "not square", "ragged", "negative", "fraction", "text", "NaN", "too many"],
)
def test_what_is_no_confusion_matrix_is_refused(given: object, message: str) -> None:
    with pytest.raises(StepError, match=message):
        confusion_from({"confusion": given}, "data:evaluate")


def test_a_version_keeps_its_confusion_matrix(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=ONNX_YAML.replace("data:evaluate", "data:counted"))
    (folder / "data.py").write_text(CONFUSION_PY)
    assert sandbox.build()["doubled"].status == "new"
    manifest = sandbox.manifest("doubled")
    assert manifest.verification.confusion == ((3, 1), (0, 4))
    assert manifest.metrics == {"accuracy": 1.0}


def test_the_picture_of_a_matrix_is_a_whole_file() -> None:
    picture = ET.fromstring(matrix_svg("digits & more", [[40, 2], [0, 12345]], ["<zero>", "one"]))
    texts = ["".join(node.itertext()) for node in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"digits & more", "<zero>", "one", "40", "2", "12k"} <= set(texts)
    assert "0" not in texts  # empty cells stay empty


def test_a_build_that_misses_a_gate_tells_what_was_measured(sandbox: Sandbox) -> None:
    sandbox.workers = True  # the error crosses a process
    sandbox.onnx_builder(yaml=ONNX_YAML.replace("min: 0.9", "min: 1.5"))
    error = sandbox.build()["doubled"].error
    assert isinstance(error, VerifyError)
    builder = sandbox.builders["doubled"]
    failed = BuiltModel(
        "doubled", "failed", builder=builder, reason=str(error), measured=error.measured, missed=error.missed
    )
    assert metrics(failed) == {"accuracy": 1.0}
    assert [(gate.name, gate.text, gate.verdict) for gate in gates(failed)] == [("accuracy", "1, min 1.5", "missed")]
    assert tags(failed)["modelwright.gate.accuracy"] == "missed: 1, min 1.5"
    assert params(failed)["gate.accuracy.min"] == "1.5"
    assert params(failed)["source.kind"] == "onnx"


def test_a_training_becomes_curves() -> None:
    epochs_of = ({"epoch": 1, "metrics": {"loss": 0.5}}, {"epoch": 2, "metrics": {"loss": 0.25}})
    training = TrainingRecord.model_validate(
        {"params": {"lr": 0.1}, "epochs": epochs_of, "folds": {"accuracy": (0.9, 0.8)}}
    )
    curves = [(epoch.step, epoch.metrics) for epoch in epochs(training)]
    assert curves == [(1, {"loss": 0.5}), (2, {"loss": 0.25}), (1, {"fold.accuracy": 0.9}), (2, {"fold.accuracy": 0.8})]
    assert params(BuiltModel("m", "new", training=training)) == {"training.lr": "0.1"}


def test_names_and_values_are_as_mlflow_takes_them() -> None:
    assert key("a/../b: ü/") == "a/b_ _"
    assert len(key("x" * 300)) == 250
    nested = {"steps": [{"model": "a"}, {"model": "b"}], "none": None, "flag": False, "text": "y" * 7000}
    found = dict(flat("source", nested))
    assert found.keys() == {"source.steps.0.model", "source.steps.1.model", "source.flag", "source.text"}
    assert found["source.flag"] == "false"
    assert len(found["source.text"]) == 6000


@pytest.mark.parametrize("models", [True, False])
def test_a_version_comes_with_its_files_unless_they_are_left_out(sandbox: Sandbox, models: bool) -> None:
    with_tracking(sandbox, f"models = {str(models).lower()}").onnx_builder()
    assert sandbox.build()["doubled"].status == "new"
    outbox = Outbox.of(sandbox.project.state)
    put_published(sandbox.project, sandbox.repository, outbox, "doubled", ())
    (record,) = outbox.waiting()
    names = set(list_tree(outbox.version(record)))
    own = {"model.onnx", "MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    assert names == (own if models else set())
    where = "models:/doubled/1"
    fetched = sandbox.root / "fetched"
    shutil.copytree(outbox.files(record) / "version", fetched)
    assert (
        f"{where}: is version 1 of 'doubled' as Modelwright registered it, without" in no_model(fetched, where).message
    )
    shutil.copytree(sandbox.repository.folder("doubled", 1), fetched, dirs_exist_ok=True)
    assert "it has no model.onnx, so no flavour of MLflow" in no_model(fetched, where).message


def test_the_outbox_gives_what_it_was_given(tmp_path: Path) -> None:
    outbox = Outbox.of(tmp_path)
    assert outbox.waiting() == []
    record = BuildRecord(uid="2", model="digits", status="new", started_ms=1, ended_ms=2, metrics={"accuracy": 0.5})
    outbox.put(record, {"version/manifest.json": b"{}"})
    outbox.put(record.model_copy(update={"uid": "1"}), {})
    (outbox.folder / ".half").mkdir()
    (outbox.folder / "3").mkdir()
    (outbox.folder / "3" / "record.json").write_text('{"uid": 3')
    assert [item.uid for item in outbox.waiting()] == ["1", "2"]
    assert outbox.waiting()[1] == record
    assert (outbox.files(record) / "version/manifest.json").read_bytes() == b"{}"
    assert not (outbox.folder / "3").exists()
    outbox.clean()
    outbox.remove("1")
    assert [path.name for path in outbox.folder.iterdir()] == ["2"]
