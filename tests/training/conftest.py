"""A small problem that trains in a second: two classes of points, and a builder that learns them with the kit."""

from __future__ import annotations

DATA_PY = """
import numpy as np


def points(count=240):
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    centres = np.array([[0, 2], [2, -1], [-2, -1]], dtype=np.float32)
    return (centres[labels] + random.normal(0, 0.7, (count, 2))).astype(np.float32), labels


def samples():
    return {"x": points()[0][:8]}


def evaluate(infer):
    x, labels = points()
    return {"accuracy": float((infer({"x": x})["y"].argmax(1) == labels).mean())}
"""

TRAIN_PY = """
import os
import time

from data import points
from torch import nn

from modelwright.training import fit, k_fold

HOLD = os.environ.get("HOLD_IN_BATCH")
batches = 0


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 3))

    def forward(self, x):
        return self.layers(x)


def jittered(x):
    global batches
    batches += 1
    while HOLD and batches > int(HOLD):
        time.sleep(0.02)
    return x + 0.1 * x.new_empty(x.shape).normal_()


def train(epochs):
    k_fold(Net, points(), 3, epochs=1, lr=0.02)
    return fit(Net, points(), validation=0.25, epochs=epochs, lr=0.02, augment=jittered, seed=3)
"""

MODEL_YAML = """
source: {kind: torch, entry: train:train, params: {epochs: 4}}
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [3]}]
samples: data:samples
evaluate: data:evaluate
gates: {accuracy: {min: 0.8}, loss: {max: 1.5, of: folds}}
serving: {max_batch_size: 8}
"""
