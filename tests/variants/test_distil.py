"""Variants that learn from the plain model: the loop, the builder's own training, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Sandbox

pytestmark = pytest.mark.torch

YAML = """
source: {kind: torch, entry: train:train}
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: logits, dtype: FP32, shape: [3]}]
samples: data:samples
evaluate: data:evaluate
serving: {max_batch_size: 8}
variants:
  - {name: small, steps: [{distil: OPTIONS}], gates: {accuracy: {max_drop: 0.2}}}
MORE
"""

DATA_PY = """
import numpy as np


def samples():
    return {"x": np.random.default_rng(1).normal(size=(16, 2)).astype(np.float32)}


def labels(x):
    return (x.sum(1) > 0).astype(np.int64) + (x.sum(1) > 1)


def evaluate(infer):
    x = np.random.default_rng(2).normal(size=(64, 2)).astype(np.float32)
    return {"accuracy": float((infer({"x": x})["logits"].argmax(1) == labels(x)).mean())}


def training(epoch):
    x = np.random.default_rng(epoch).normal(size=(128, 2)).astype(np.float32)
    return {"x": x, "labels": labels(x)}


def unlabelled(epoch):
    return {"x": training(epoch)["x"]}


def shifted(epoch):
    return training(epoch) | {"labels": training(epoch)["labels"] + 1}


def halves(epoch):
    return training(epoch) | {"labels": training(epoch)["labels"] / 2}


def columns(epoch):
    return training(epoch) | {"labels": training(epoch)["labels"][:, None]}


def doubles(epoch):
    return {"x": training(epoch)["x"].astype(np.float64)}


def extra(epoch):
    return training(epoch) | {"label": 1}


def shrinking(epoch):
    return {name: array[epoch:] for name, array in training(epoch).items()}


def infinite(epoch):
    return training(epoch) | {"x": np.full((128, 2), np.inf, np.float32)}


def batches(epoch):
    yield training(epoch)
"""

TRAIN_PY = """
import torch
from data import training
from torch import nn


class Net(nn.Module):
    def __init__(self, width, outputs=3):
        super().__init__()
        self.a, self.drop, self.b = nn.Linear(2, width), nn.Dropout(0.1), nn.Linear(width, outputs)

    def forward(self, x):
        return self.b(self.drop(torch.relu(self.a(x))))


def train():
    return fit(Net(64), None, 40)


def fit(student, teacher, epochs):
    student.train()
    optimiser = torch.optim.Adam(student.parameters(), lr=0.02)
    for epoch in range(epochs):
        data = training(epoch)
        x = torch.from_numpy(data["x"])
        wanted = torch.from_numpy(data["labels"]) if teacher is None else teacher(x).softmax(1)
        optimiser.zero_grad()
        nn.functional.cross_entropy(student(x), wanted).backward()
        optimiser.step()
    return student.eval()


def student(width):
    return Net(width)


def wide(outputs):
    return Net(4, outputs)


def frozen():
    return Net(4).requires_grad_(False)


def weights():
    return Net(4).state_dict()


def spoiled(student, teacher):
    student.a.weight.data[0, 0] = float("inf")
    return student
"""

LESSON = "student: train:student, params: {width: 8}, epochs: 40, lr: 0.05, batch_size: 32"


def builder(sandbox: Sandbox, options: str, more: str = "") -> None:
    yaml = YAML.replace("OPTIONS", options).replace("MORE", more)
    sandbox.write("net", model_yaml=yaml, data_py=DATA_PY, train_py=TRAIN_PY)


@pytest.fixture(scope="module")
def shared(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    """A project whose plain model is built once."""
    return sandbox_factory()


def facts(sandbox: Sandbox) -> dict[str, Any]:
    return next(dict(step.facts) for step in sandbox.manifest("small").lineage if step.step == "distil")


def test_a_student_learns_from_its_teacher(sandbox: Sandbox) -> None:
    builder(sandbox, f"{{{LESSON}, data: data:training}}")
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"net": "new", "small": "new"}, outcomes
    learnt = facts(sandbox)
    assert learnt["parameters"] == 51
    assert learnt["teacher_parameters"] == 387
    losses = learnt["losses"]
    assert len(losses) == 40
    assert losses[-1] < losses[0] / 5
    path = sandbox.root / "builders/net/train.py"
    path.write_text(path.read_text() + "# read again, so trained again\n")
    assert sandbox.build("small")["small"].status == "unchanged"  # the same numbers every time


@pytest.mark.parametrize(
    "options",
    [
        "alpha: 1, data: data:unlabelled",
        "alpha: 0, data: data:training",
        "loss: mse, alpha: 1, data: data:unlabelled",
    ],
    ids=["soft alone", "hard alone", "numbers"],
)
def test_losses(shared: Sandbox, options: str) -> None:
    builder(shared, f"{{{LESSON}, {options}}}")
    outcome = shared.build("small")["small"]
    assert outcome.status in ("new", "updated"), outcome.error


def test_the_builders_own_training(shared: Sandbox) -> None:
    builder(shared, "{student: train:student, params: {width: 8}, train: train:fit, train_params: {epochs: 60}}")
    outcome = shared.build("small")["small"]
    assert outcome.status in ("new", "updated"), outcome.error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{student: train:student}", "give data: module:function, what to learn from; or train, your own training"),
        ("{data: data:training}", "steps[0].distil.student: missing"),
        (f"{{{LESSON}, train: train:fit}}", "epochs: your own training has its own; write it under train_params"),
        (f"{{{LESSON}, data: data:training, alpha: 2}}", "distil.alpha: input should be less than or equal to 1"),
        (f"{{{LESSON}, data: data:training, teacher: nett}}", "distil.teacher: 'nett' is no model of this file"),
        (f"{{{LESSON}, data: data:training, teacher: small}}", "distil.teacher: 'small' is itself"),
    ],
    ids=["no data", "no student", "both", "alpha", "an unknown teacher", "itself"],
)
def test_options_that_do_not_fit_are_refused_before_anything_runs(shared: Sandbox, options: str, says: str) -> None:
    builder(shared, options)
    output = shared.error("plan", "--all")
    assert "Error: builders/net/model.yaml" in output
    assert says in output


def test_two_that_teach_each_other_are_refused(shared: Sandbox) -> None:
    lesson = f"{LESSON}, data: data:training"
    builder(
        shared,
        f"{{{lesson}, teacher: tiny}}",
        f"  - {{name: tiny, steps: [{{distil: {{{lesson}, teacher: small}}}}], gates: {{accuracy: {{min: 0.1}}}}}}",
    )
    assert "variant small: distil.teacher: 'tiny' is made by distil, too" in shared.error("plan", "--all")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("student: train:wide, params: {outputs: 4}, data: data:training", "output 'logits' is float32 [16, 4], the"),
        ("student: train:frozen, data: data:training", "the student has no weight that can be trained"),
        (
            "student: train:weights, data: data:training",
            "distil.student train:weights: expected an nn.Module, got Orde",
        ),
        ("student: train:wide, data: data:training", "its parameters and distil.params must agree"),
        (f"{LESSON}, data: data:unlabelled", "data data:unlabelled: there are no 'labels' for the hard loss"),
        (f"{LESSON}, data: data:shifted", "data data:shifted: a label is 3, but 'logits' has 3 classes"),
        (f"{LESSON}, data: data:halves", "'labels' are float64, expected whole numbers"),
        (f"{LESSON}, data: data:columns", "'labels' have shape [128, 1], expected [N]"),
        (f"{LESSON}, data: data:doubles", "data data:doubles['x'] is float64, the spec says FP32"),
        (f"{LESSON}, data: data:extra", "the model has no input 'label'\n  hint: did you mean 'labels'?"),
        (f"{LESSON}, data: data:shrinking", "epoch 1 has 127 samples, epoch 0 has 128"),
        (f"{LESSON}, data: data:batches", "data data:batches: expected a dict of arrays, got generator"),
        (f"{LESSON}, data: data:infinite", "the loss is nan in epoch 0: the student does not train"),
        (f"{LESSON}, data: data:training, axis: 1", "axis: 'logits' has 1 dimensions, and no axis 1"),
        (f"{LESSON}, data: data:training, output: logit", "output: the model has no 'logit'"),
        ("student: train:student, params: {width: 4}, train: train:spoiled", "'a.weight' holds NaN or infinity"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_is_published(shared: Sandbox, options: str, says: str) -> None:
    builder(shared, f"{{{options}}}")
    before = shared.published()
    outcome = shared.build("small")["small"]
    assert outcome.status == "failed"
    assert says in str(outcome.error)
    assert "builders/net/model.yaml: variant small: distil" in str(outcome.error)
    assert shared.published() == before
