"""The handwritten digits that come with scikit-learn: 1797 grey images of 8x8, ten classes, one fixed split."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = dict[str, NDArray[np.float32]]

GOLDEN = 32
_SPLIT_SEED = 0


@cache
def split() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Training images, held-out images, their labels. Images are (N, 1, 8, 8) in 0..1; a fifth is held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target.astype(np.int64), test_size=0.2, stratify=digits.target, random_state=_SPLIT_SEED
    )
    return train, test, train_labels, test_labels


def samples() -> Tensors:
    """Images the training never sees, for verification, warm-up and load."""
    return {"image": split()[1][:GOLDEN]}


def evaluate(infer: Callable[[Tensors], Tensors]) -> dict[str, float]:
    """Accuracy on the held-out images; `infer` maps {"image"} to {"logits"}."""
    _, images, _, labels = split()
    batches = [infer({"image": images[start : start + GOLDEN]})["logits"] for start in range(0, len(images), GOLDEN)]
    return {"accuracy": float((np.concatenate(batches).argmax(axis=1) == labels).mean())}
