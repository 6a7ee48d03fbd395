"""Training images to measure the ranges of activations on: those held out are for the evaluation."""

from __future__ import annotations

from data import Tensors, split

_COUNT = 256


def images() -> Tensors:
    return {"image": split()[0][:_COUNT]}
