"""Variants that are pruned: rounds, targets, gates, fine-tuning by the builder's code, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Sandbox

pytestmark = pytest.mark.torch

YAML = """
source: {kind: torch, entry: train:train}
inputs: [{name: x, dtype: FP32, shape: [4]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
samples: data:samples
evaluate: data:evaluate
serving: {max_batch_size: ROWS}
variants:
  - {name: small, steps: [{prune: OPTIONS}], gates: {closeness: {GATE}}}
"""

DATA_PY = """
import numpy as np


def samples():
    return {"x": np.linspace(-1, 1, 64, dtype=np.float32).reshape(16, 4)}


def evaluate(infer):
    x = samples()["x"]
    return {"closeness": float(1 - np.abs(infer({"x": x})["y"] - np.stack([x.sum(1), x.max(1)], 1)).mean())}
"""

TRAIN_PY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 64), nn.Linear(64, 64), nn.Linear(64, 2)

    def forward(self, x):
        return self.out(torch.relu(self.b(torch.relu(self.a(x)))))


def train():
    return fit(Net(), 150)


def fit(module, steps):
    x = torch.linspace(-1, 1, 64).reshape(16, 4)
    y = torch.stack([x.sum(1), x.max(1).values], 1)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.mse_loss(module(x), y).backward()
        optimiser.step()
    return module.eval()


def broken(module):
    module.a.weight.data[0] = float("nan")
    return module


def other(module):
    return Net()


def nothing(module):
    module.eval()


def loss(module):
    x = torch.linspace(-1, 1, 64).reshape(16, 4)
    return module(x).square().mean()


def dense(module, steps):
    import copy

    for name, part in module.named_modules():
        if hasattr(part, "weight_orig"):
            torch.nn.utils.prune.remove(part, "weight")
            part.weight.data += 0.1
    return module
"""


@pytest.fixture(scope="module")
def shared(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    """A project whose plain model is built once."""
    return sandbox_factory()


def builder(sandbox: Sandbox, options: str, gate: str = "min: 0.9", rows: int = 8) -> None:
    yaml = YAML.replace("OPTIONS", options).replace("GATE", gate).replace("ROWS", str(rows))
    sandbox.write("net", model_yaml=yaml, data_py=DATA_PY, train_py=TRAIN_PY)


def facts_of(sandbox: Sandbox) -> dict[str, Any]:
    return next(dict(step.facts) for step in sandbox.manifest("small").lineage if step.step == "prune")


def test_a_pruned_model_is_smaller_and_passes_its_gate(sandbox: Sandbox) -> None:
    builder(sandbox, "{flops: 0.3, entry: train:fit, params: {steps: 60}}")
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"net": "new", "small": "new"}, outcomes
    manifest = sandbox.manifest("small")
    facts = facts_of(sandbox)
    assert facts["channels"] == {"a": [64, 32], "b": [64, 32]}
    assert facts["flops"] / facts["flops_before"] <= 0.3
    assert facts["left"] == {"out": "its channels are those of an output"}
    assert facts["stopped"].startswith("the target is reached: flops is 0.2")
    assert facts["rounds"][-1]["metrics"]["closeness"] == pytest.approx(manifest.metrics["closeness"], abs=1e-4)
    assert manifest.verification.size_ratio is not None
    assert manifest.verification.size_ratio < 0.5
    assert all(outcome.status == "unchanged" for outcome in sandbox.build().values())


def test_the_last_round_that_passes_is_kept(sandbox: Sandbox) -> None:
    """Without fine-tuning a little goes well, and too much does not."""
    builder(sandbox, "{size: 0.02, rounds: 6, multiple_of: 1, importance: taylor, loss: train:loss}", "max_drop: 0.1")
    sandbox.build()
    facts = facts_of(sandbox)
    *passed, failed = facts["rounds"]
    assert facts["stopped"].startswith(f"round {len(passed) + 1} misses a gate, round {len(passed)} is kept: closeness")
    assert "the plain model's" in failed["missed"]
    assert facts["parameters"] < facts["parameters_before"]


def test_a_gate_of_an_unknown_metric_is_an_error_before_the_training(shared: Sandbox) -> None:
    builder(shared, "{flops: 0.3, entry: train:broken}")
    folder = shared.root / "builders/net"
    (folder / "train.py").write_text(f"{TRAIN_PY}\n\ndef broken(module):\n    raise RuntimeError('it is trained')\n")
    yaml = folder / "model.yaml"
    yaml.write_text(yaml.read_text().replace("closeness: {", "nearness: {"))
    error = str(shared.build("small")["small"].error)
    assert "gates.nearness: evaluate returned no such metric, only ['closeness']" in error


def test_latency_is_a_target(shared: Sandbox) -> None:
    builder(shared, "{latency: 0.95, batch: 512, entry: train:fit, params: {steps: 60}}", rows=512)
    outcome = shared.build("small")["small"]
    assert outcome.status == "new", outcome.error
    facts = facts_of(shared)
    assert facts["stopped"].startswith(("the target is reached: latency is ", "all rounds are done: latency is "))
    assert facts["rounds"][-1]["latency"] > 0


def test_sparsity_keeps_two_of_four(sandbox: Sandbox) -> None:
    import numpy as np
    import onnx

    builder(sandbox, "{sparsity: '2:4', entry: train:fit, params: {steps: 60}}")
    outcome = sandbox.build("small")["small"]
    assert outcome.status == "new", outcome.error
    facts = facts_of(sandbox)
    assert facts["sparse"] == ["a", "b", "out"]
    assert facts["parameters"] == facts["parameters_before"]
    model = onnx.load(sandbox.root / "model_repository/small/1/model.onnx")
    weight = next(onnx.numpy_helper.to_array(item) for item in model.graph.initializer if item.name == "b.weight")
    kept = np.count_nonzero(weight.reshape(-1, 4), axis=1)
    assert kept.max() == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{flops: 0.5, size: 0.5}", "steps[0].prune: flops and size: give one target; the others can be gates"),
        ("{}", "give a target: flops, size or latency, the share that is left; or sparsity: '2:4'"),
        ("{flops: 1.5}", "steps[0].prune.flops: input should be less than 1, got 1.5"),
        ("{flops: 0.5, importance: taylor}", "importance: taylor and loss: module:function belong together"),
        ("{flops: 0.5, params: {steps: 1}}", "params: they are arguments of the entry, which is missing"),
        ("{flops: 0.5, entry: train:fine}", "has no function 'fine'"),
        ("{flop: 0.5}", "did you mean 'flops'?"),
    ],
    ids=["two targets", "none", "a share above 1", "no loss", "no entry", "an unknown entry", "an unknown field"],
)
def test_options_that_do_not_fit_are_refused_before_anything_runs(sandbox: Sandbox, options: str, says: str) -> None:
    builder(sandbox, options)
    output = sandbox.error("plan", "--all")
    assert "Error: builders/net/" in output
    assert says in output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            "{flops: 0.01}",
            "prune: flops: 0.01 cannot be reached: 0.0786 is the smallest; what stays: out: its channels",
        ),
        ("{flops: 0.5, keep: ['a', 'b']}", "prune: nothing can be pruned: "),
        ("{flops: 0.5, keep: ['c']}", "prune: keep: no layer matches 'c'"),
        ("{flops: 0.3, rounds: 1}", "prune: the first round misses a gate, flops 0.2"),
        ("{flops: 0.3, entry: train:broken}", "prune.entry train:broken: the weight 'a.weight' holds NaN or infinity"),
        ("{flops: 0.3, entry: train:other}", "prune: entry: it returned a module with other layers than it was given"),
        ("{flops: 0.3, entry: train:nothing}", "prune.entry train:nothing: expected an nn.Module, got NoneType"),
        ("{flops: 0.3, entry: train:fit}", "its parameters and prune.params must agree"),
        ("{sparsity: '2:4', entry: train:dense, params: {steps: 1}}", "entry: the sparsity 2:4 of 'a' is lost"),
    ],
    ids=["out of reach", "all kept", "no such layer", "a gate", "NaN", "another", "nothing", "parameters", "dense"],
)
def test_what_goes_wrong_is_said_and_nothing_is_published(shared: Sandbox, options: str, says: str) -> None:
    builder(shared, options, "min: 0.995" if "rounds" in options else "min: 0.5")
    before = shared.published()
    outcome = shared.build("small")["small"]
    assert outcome.status == "failed"
    assert says in str(outcome.error)
    assert "builders/net/model.yaml: variant small: prune" in str(outcome.error)
    assert shared.published() == before
