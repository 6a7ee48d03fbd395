"""The breast cancer data that comes with scikit-learn: 569 tumours, thirty measurements of nuclei, one fixed split."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = dict[str, NDArray[Any]]

GOLDEN = 64
_SPLIT_SEED = 0


@cache
def split() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Measurements to fit on, measurements held out, and the labels of both. A quarter is held out."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    tumours = load_breast_cancer()
    train, test, train_labels, test_labels = train_test_split(
        tumours.data.astype(np.float32),
        tumours.target.astype(np.int64),
        test_size=0.25,
        stratify=tumours.target,
        random_state=_SPLIT_SEED,
    )
    return train, test, train_labels, test_labels


def samples() -> Tensors:
    """Tumours that the trees are not fitted on; ten thousand rows are drawn from them."""
    return {"nuclei": split()[1][:GOLDEN]}


def evaluate(infer: Callable[[Tensors], Tensors]) -> dict[str, float]:
    """Accuracy on the tumours held out; `infer` maps {"nuclei"} to {"label", "probabilities"}."""
    _, nuclei, _, labels = split()
    return {"accuracy": float((infer({"nuclei": nuclei})["label"] == labels).mean())}
