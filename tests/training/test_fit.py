"""`fit` and `k_fold` outside of a build: what they learn, and what they refuse."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import DiskFullError, StepError
from modelwright.training import fit, k_fold
from modelwright.training.session import TrainingSession, session

pytestmark = pytest.mark.torch


def points(count: int = 240) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = np.array([[0, 2], [2, -1], [-2, -1]], dtype=np.float64)
    return centres[labels] + random.normal(0, 0.7, (count, 2)), labels


def net(outputs: int = 3) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, outputs))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[TrainingSession]:
    with session("builders/x/model.yaml", tmp_path, lambda text: None) as opened:
        yield opened


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


BAD_DATA = {
    "lengths": ((points()[0], points()[1][:-1]), {}, "240 inputs.*239|239 targets, 240 inputs"),
    "no samples": ((np.zeros((0, 2)), np.zeros(0)), {}, "data: has no samples"),
    "no pair": ((points()[0],), {}, r"expected \(inputs, targets\), got 1"),
    "no data": (3, {}, "expected .* or a Dataset with a length, got int"),
    "zero epochs": (points(), {"epochs": 0}, "epochs: expected a whole number from 1, got 0"),
    "an optimiser": (points(), {"optimiser": "adamv"}, "no optimiser 'adamv': .*'adamw'"),
    "a metric": (points(), {"metrics": ["acuracy"]}, "no metric 'acuracy': .*'accuracy'"),
    "a monitor": (points(), {"monitor": "val_acuracy", "validation": 0.2}, "'val_acuracy': .*'val_accuracy'"),
    "a monitor without data": (points(), {"monitor": "val_loss"}, "'val_loss' without validation data"),
    "patience alone": (points(), {"patience": 2}, "patience: needs validation data"),
    "a share": (points(), {"validation": 1.5}, "a share between 0 and 1, got 1.5"),
    "smoothing": (points(), {"loss": "mse", "label_smoothing": 0.1}, "label_smoothing: is for loss='cross_entropy'"),
    "another direction": (
        points(),
        {"metrics": {"own": max}, "monitor": "val_own", "validation": 0.2},
        "'min' or 'max' of val_own",
    ),
    "augment": (points(), {"augment": lambda batch: batch[:-1]}, "augment gave 31 samples back for 32"),
}


@pytest.mark.parametrize(("data", "options", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_what_no_training_can_be_made_of(
    here: TrainingSession, data: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(StepError, match=message) as caught:
        fit(net(), data, **{"epochs": 1, **options})
    assert caught.value.message.startswith("builders/x/model.yaml: fit: ")


def test_a_loss_that_is_no_number_names_epoch_and_batch(here: TrainingSession) -> None:
    x, labels = points()
    x[:] = np.where(np.arange(240)[:, None] == 100, np.inf, x)
    with pytest.raises(StepError, match=r"the loss of epoch 1, batch \d, is nan"):
        fit(net(), (x, labels), epochs=3, batch_size=32)


def test_a_checkpoint_of_another_model_is_refused(here: TrainingSession, tmp_path: Path) -> None:
    fit(net, points(), epochs=1)
    with (
        session("b", tmp_path, print),
        pytest.raises(StepError, match=r"001\.ckpt is of another training: weights 3\.weight"),
    ):
        fit(net(4), points(), epochs=1)


def test_a_checkpoint_that_was_cut_short_is_as_good_as_none(here: TrainingSession, tmp_path: Path) -> None:
    (tmp_path / "001.ckpt").write_bytes(b"PK\x03\x04 cut")
    fit(net, points(), epochs=1)
    assert here.record is not None
    assert len(here.record.epochs) == 1


def test_a_full_disk_stops_the_build(here: TrainingSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFullError, match=r"001\.ckpt: No space left on device"):
        fit(net, points(), epochs=1)


def test_early_stopping_keeps_the_best_epoch(here: TrainingSession) -> None:
    module = fit(
        net, points(), epochs=60, lr=0.5, schedule="constant", validation=0.3, patience=3, monitor="val_accuracy"
    )
    record = here.record
    assert record is not None
    values = [epoch.metrics["val_accuracy"] for epoch in record.epochs]
    assert record.best_epoch == 1 + values.index(max(values))
    assert len(values) == record.best_epoch + 3 < 60
    assert not module.training


def test_biases_and_norms_do_not_decay() -> None:
    from modelwright.training.optimisers import parameter_groups

    decayed, others = parameter_groups(net(), 0.1)
    assert (decayed["weight_decay"], [len(item) for item in decayed["params"]]) == (0.1, [16, 3])
    assert (others["weight_decay"], {item.ndim for item in others["params"]}) == (0.0, {1})


@pytest.mark.parametrize("options", [
    {"schedule": "cosine", "clip": 1.0, "accumulate": 3, "class_weights": "balanced"},
    {"optimiser": "sgd", "schedule": "constant", "precision": "bf16", "metrics": ["f1"], "validation": 0.2},
    {"loss": "huber", "targets": "numbers"},
], ids=["gradients", "bf16", "regression"])  # fmt: skip
def test_the_same_training_gives_the_same_weights(here: TrainingSession, options: dict[str, Any]) -> None:
    import torch

    x, labels = points()
    numbers = options.get("targets") is not None
    data = (x, x.sum(axis=1) if numbers else labels)
    given = {name: value for name, value in options.items() if name != "targets"}
    before = torch.random.get_rng_state()
    first, second = (
        fit(lambda: net(1 if numbers else 3), data, epochs=8, lr=0.02, **given).state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())
    assert here.record is not None
    losses = [epoch.metrics["loss"] for epoch in here.record.epochs]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.usefixtures("no_gpu")
def test_half_precision_of_gpus_needs_one(here: TrainingSession) -> None:
    with pytest.raises(StepError, match="fp16 needs a GPU"):
        fit(net, points(), epochs=1, precision="fp16")


@pytest.mark.usefixtures("no_gpu")
def test_several_devices_train_in_processes_of_their_own(here: TrainingSession) -> None:
    module = fit(net(), points(), epochs=4, lr=0.05, devices=2)
    assert here.record is not None
    losses = [epoch.metrics["loss"] for epoch in here.record.epochs]
    assert len(losses) == 4
    assert losses[-1] < 0.7 * losses[0]
    assert not module.training


def test_a_dataset_and_several_inputs(here: TrainingSession) -> None:
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    class Sum(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, left: Any, right: Any) -> Any:
            return self.layer(torch.stack([left, right], dim=1))

    x, labels = points()
    fit(Sum, ({"right": x[:, 1], "left": x[:, 0]}, labels), epochs=2)
    dataset = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(labels))
    fit(net, dataset, epochs=2, validation=0.2)
    assert here.record is not None
    assert here.record.params["validation_samples"] == 48


def test_folds_are_of_every_class_and_unseen(here: TrainingSession) -> None:
    folds = k_fold(net, points(), 4, epochs=4, lr=0.05)
    assert set(folds.metrics) == {"loss", "accuracy"}
    assert 0.8 < folds.mean("accuracy") <= 1
    assert re.fullmatch(r"loss \S+ ± \S+ over 4 folds, accuracy \S+ ± \S+ over 4 folds", str(folds))
    with pytest.raises(StepError, match="k_fold: folds: a class has 2 samples, fewer than 3 folds"):
        k_fold(net, points(6), 3, epochs=1)
    with pytest.raises(StepError, match="k_fold: expected a function or class that makes a module"):
        k_fold(net(), points(), 3, epochs=1)
