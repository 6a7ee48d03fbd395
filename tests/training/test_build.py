"""Builders that train with the kit: what is kept, what a build shows, and how it goes on after a kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.build.store import Artifact, Store
from modelwright.cli.progress import Silent
from modelwright.facts.key_content import KeyContent
from modelwright.facts.training import FoldSpread, TrainingRecord, TrainingSummary
from modelwright.kinds.step import Step
from modelwright.steps.train import Trained
from tests.conftest import Sandbox, new_sandbox
from tests.training.conftest import DATA_PY, MODEL_YAML, TRAIN_PY
from tests.waiting import wait_until

pytestmark = pytest.mark.torch


class Heard(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def progress(self, step: Step, text: str) -> None:
        assert step.id == ("points", "torch")
        self.texts.append(text)


def project_at(root: Path) -> Sandbox:
    sandbox = new_sandbox(root)
    sandbox.write("points", model_yaml=MODEL_YAML, data_py=DATA_PY, train_py=TRAIN_PY)
    return sandbox


def trained(sandbox: Sandbox) -> Artifact:
    version = sandbox.repository.latest("points")
    assert version is not None
    key = next(step.key for step in version[1].lineage if step.step == "torch")
    artifact = Store(sandbox.project.store).get(key)
    assert artifact is not None
    return artifact


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sandbox, Heard]:
    sandbox, heard = project_at(tmp_path_factory.mktemp("kit") / "project"), Heard()
    assert sandbox.build(listener=heard)["points"].status == "new"
    return sandbox, heard


def test_the_record_of_a_training_is_in_the_artifact(built: tuple[Sandbox, Heard]) -> None:
    artifact = trained(built[0])
    record = TrainingRecord.read(artifact.path(""))
    assert record is not None
    assert [epoch.epoch for epoch in record.epochs] == [1, 2, 3, 4]
    assert set(record.epochs[0].metrics) == {"loss", "val_loss", "val_accuracy"}
    losses = [epoch.metrics["val_loss"] for epoch in record.epochs]
    assert record.monitor == "val_loss"
    assert record.best_epoch == 1 + losses.index(min(losses))
    assert {name: len(values) for name, values in record.folds.items()} == {"loss": 3, "accuracy": 3}
    assert record.params["lr"] == 0.02
    assert record.params["augment"] == "jittered"
    assert artifact.facts_as(Trained).training == TrainingSummary.of(record)


def test_a_build_shows_epochs_metrics_and_the_time_left(built: tuple[Sandbox, Heard]) -> None:
    texts = built[1].texts
    assert any(text.startswith("fold 3/3, epoch 1/1, loss ") for text in texts)
    assert any(
        text.startswith("epoch 2/4, loss ") and "val_accuracy" in text and text.endswith("s left") for text in texts
    )


def test_the_manifest_tells_the_spread_of_gated_folds(built: tuple[Sandbox, Heard]) -> None:
    version = built[0].repository.latest("points")
    record = TrainingRecord.read(trained(built[0]).path(""))
    assert version is not None
    assert record is not None
    assert version[1].verification.folds == {"loss": FoldSpread.of(record.folds["loss"])}


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (
            "accuracy: {min: 0.9999, of: folds}",
            r"over 3 folds accuracy is 0\.\d+, the gate asks for at least 0\.9999 \(.* ± ",
        ),
        (
            "f1: {min: 0.1, of: folds}",
            r"gates\.f1: the training kept no folds of such a metric, only \['accuracy', 'loss'\]",
        ),
        ("f1: {max_drop: 0.1, of: folds}", "of: folds goes with min and max"),
    ],
    ids=["missed", "unknown", "of a variant"],
)
def test_a_gate_of_folds_holds_a_model_back(built: tuple[Sandbox, Heard], gate: str, message: str) -> None:
    file = built[0].root / "builders/points/model.yaml"
    before = file.read_text()
    file.write_text(before.replace("accuracy: {min: 0.8}", gate))
    try:
        assert re.search(message, built[0].error())
    finally:
        file.write_text(before)


def test_the_key_of_a_training_names_the_kit(built: tuple[Sandbox, Heard]) -> None:
    content = KeyContent.model_validate(trained(built[0]).key_content)
    assert {"training kit", "lightning", "torch"} <= set(content.tools)


def test_nothing_is_left_of_a_training(built: tuple[Sandbox, Heard]) -> None:
    root = built[0].root
    assert not list((root / ".modelwright" / "checkpoints").glob("*"))
    assert sorted(path.name for path in (root / "builders/points").iterdir()) == ["data.py", "model.yaml", "train.py"]


def test_a_killed_training_goes_on_to_the_same_bytes(built: tuple[Sandbox, Heard], tmp_path: Path) -> None:
    sandbox = project_at(tmp_path / "project")
    checkpoints = sandbox.root / ".modelwright" / "checkpoints"
    held = {**os.environ, "HOLD_IN_BATCH": "14"}  # six batches an epoch: in the third
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", str(sandbox.root), "build"]
    said = tmp_path / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(command, env=held, stdout=file, stderr=file)
    try:
        # Importing torch and Lightning is most of it, so each part has a patience of its own.
        logs = sandbox.root / ".modelwright/store/tmp"
        wait_until(lambda: any(logs.glob("*/log.txt")) or process.poll() is not None, "a step")
        wait_until(lambda: any(checkpoints.glob("*/*.ckpt")) or process.poll() is not None, "a fold")
        wait_until(lambda: epochs_of(checkpoints) or process.poll() is not None, "a checkpoint")
        assert process.poll() is None, said.read_text()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert sandbox.build()["points"].status == "new"
    assert "goes on after epoch " in trained(sandbox).log.read_text()
    assert trained(sandbox).files == trained(built[0]).files
    assert not list(checkpoints.glob("*"))


def epochs_of(checkpoints: Path) -> int:
    """The epochs that the checkpoint of the last training holds; the three folds come before it."""
    import torch

    file = next(checkpoints.glob("*/004.ckpt"), None)
    return len(torch.load(file, weights_only=True)["epochs"]) if file else 0
