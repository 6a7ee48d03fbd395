"""Variants that were trained on with fake quantisation: what the graph holds, and what onnxruntime makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sandbox

pytestmark = pytest.mark.torch

YAML = """
source: {kind: torch, entry: train:train}
inputs: [{name: x, dtype: FP32, shape: [3, 6, 6]}]
outputs: [{name: y, dtype: FP32, shape: [4]}]
samples: data:samples
evaluate: data:evaluate
serving: {max_batch_size: 8}
variants:
  - {name: rounded, steps: [{qat: OPTIONS}], gates: {closeness: {max_drop: 0.05}}}
"""

DATA_PY = """
import numpy as np


def samples():
    return {"x": np.random.default_rng(0).normal(size=(8, 3, 6, 6)).astype(np.float32)}


def evaluate(infer, source):
    return {"closeness": float(1 - np.abs(infer(samples())["y"] - source(samples())["y"]).mean())}
"""

TRAIN_PY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1)
        self.b, self.norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.pool, self.drop, self.out = nn.MaxPool2d(2), nn.Dropout(0.1), nn.Linear(144, 4)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(x + self.norm(self.b(x)))
        return {"y": self.out(self.drop(self.pool(x).flatten(1))), "unused": x}


def train():
    torch.manual_seed(0)
    module = Net()
    module.train()(torch.randn(64, 3, 6, 6))  # statistics of the batch norm
    return module.eval()


def fit(module, steps):
    import copy

    wanted = train()
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4)
    module.train()
    for _ in range(steps):
        x = torch.randn(16, 3, 6, 6)
        optimiser.zero_grad()
        nn.functional.mse_loss(module(x)["y"], wanted(x)["y"]).backward()
        optimiser.step()
    return module.eval()


def other(module):
    return train()
"""


def builder(sandbox: Sandbox, options: str, source: str = "entry: train:train") -> None:
    yaml = YAML.replace("OPTIONS", options).replace("entry: train:train", source, 1)
    sandbox.write("net", model_yaml=yaml, data_py=DATA_PY, train_py=TRAIN_PY)


@pytest.fixture(scope="module")
def shared(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    """A project whose plain model is built once."""
    return sandbox_factory()


def test_layers_compute_in_int8_with_batch_norms_folded(shared: Sandbox, tmp_path: Path) -> None:
    import onnx
    import onnxruntime as ort

    builder(shared, "{entry: train:fit, params: {steps: 5}}")
    outcome = shared.build("rounded")["rounded"]
    assert outcome.status == "new", outcome.error
    manifest = shared.manifest("rounded")
    assert manifest.verification.precision == "int8"
    facts: dict[str, Any] = next(dict(step.facts) for step in manifest.lineage if step.step == "qat")
    assert facts["int8"] == ["a", "b", "out"]
    file = shared.root / "model_repository/rounded/1/model.onnx"
    model = onnx.load(file)
    operators = [node.op_type for node in model.graph.node]
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(operators)
    assert "BatchNormalization" not in operators
    weights = {tuple(item.dims): item for item in model.graph.initializer if item.data_type == onnx.TensorProto.INT8}
    assert {(16, 3, 3, 3), (16, 16, 3, 3), (4, 144)} <= set(weights)
    scales = {tuple(item.dims) for item in model.graph.initializer if item.data_type == onnx.TensorProto.FLOAT}
    assert {(16,), (4,)} <= scales  # one a channel

    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(file, options)
    fused = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert fused.count("QLinearConv") == 2
    assert fused.count("QLinearAdd") == 1
    assert fused.count("QGemm") == 1
    assert "Conv" not in fused


def test_layers_that_are_kept_stay_in_float(shared: Sandbox) -> None:
    import onnx

    builder(shared, "{entry: train:fit, params: {steps: 5}, keep: [out], reduce_range: true}")
    outcome = shared.build("rounded")["rounded"]
    assert outcome.status in ("new", "updated"), outcome.error
    manifest = shared.manifest("rounded", outcome.version or 0)
    facts: dict[str, Any] = next(dict(step.facts) for step in manifest.lineage if step.step == "qat")
    assert facts["int8"] == ["a", "b"]
    assert facts["kept"] == ["out"]
    model = onnx.load(shared.root / f"model_repository/rounded/{outcome.version}/model.onnx")
    weights = {tuple(item.dims): onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    assert weights[4, 144].dtype == "float32"
    assert abs(weights[16, 16, 3, 3]).max() == 63


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{entry: train:other}", "qat: entry: it returned another module, Net"),
        ("{entry: train:fit}", "its parameters and qat.params must agree"),
        ("{entry: train:fit, params: {steps: 1}, keep: [o]}", "qat: keep: no layer matches 'o'"),
        ("{entry: train:fit, params: {steps: 1}, keep: ['*']}", "qat: no convolution and no linear layer can compute"),
    ],
    ids=["another module", "parameters", "no such layer", "all kept"],
)
def test_what_goes_wrong_is_said_and_nothing_is_published(shared: Sandbox, options: str, says: str) -> None:
    builder(shared, options)
    before = shared.published()
    outcome = shared.build("rounded")["rounded"]
    assert outcome.status == "failed"
    assert says in str(outcome.error)
    assert "builders/net/model.yaml: variant rounded: qat" in str(outcome.error)
    assert shared.published() == before


def test_the_torchscript_exporter_cannot_write_it(sandbox: Sandbox) -> None:
    builder(sandbox, "{entry: train:fit, params: {steps: 1}}", "entry: train:train, exporter: torchscript")
    outcome = sandbox.build("rounded")["rounded"]
    assert "qat: what qat makes is exported by torch's dynamo exporter alone" in str(outcome.error)


def test_a_captured_module_comes_back_from_its_file(tmp_path: Path) -> None:
    import torch

    from modelwright.steps.qat import storable

    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)).eval()
    x = torch.ones(2, 3)
    kept = storable(torch.export.export(module, (x,)))
    torch.save(kept, tmp_path / "module.pt")
    again = torch.load(tmp_path / "module.pt", weights_only=False)
    torch.testing.assert_close(again(x), module(x))
    assert not again.training
