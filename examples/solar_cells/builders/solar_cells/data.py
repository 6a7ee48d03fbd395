"""Photographs of 2,624 solar cells, from the package elpv-dataset: one fixed split, and what is measured on it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = dict[str, NDArray[Any]]

_EVERY = 1  # each photograph; for a quick try, each tenth
_TEST_SHARE = 0.25
_SPLIT_SEED = 0
_GOLDEN = 8
_CALIBRATION = 256
_BATCH = 32


class Cells(NamedTuple):
    """Some of the photographs: (N, 300, 300) grey values, and (N) how probable a defect is to the expert, in thirds."""

    photographs: NDArray[np.uint8]
    thirds: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """1 for a defective cell: a probability of 2/3 or 1."""
        return (self.thirds >= 2).astype(np.int64)

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Whether the expert had no doubt: a probability of 0 or 1."""
        return self.thirds % 3 == 0


@cache
def split() -> tuple[Cells, Cells]:
    """Training and test part, three quarters and one, with the same shares of each probability and type of cell."""
    from elpv_dataset.utils import load_dataset
    from sklearn.model_selection import train_test_split

    photographs, probabilities, types = (part[::_EVERY] for part in load_dataset())
    thirds = np.rint(3 * probabilities).astype(np.int64)
    groups = [f"{third} {kind}" for third, kind in zip(thirds, types, strict=True)]
    train, test = train_test_split(
        np.arange(len(groups)), test_size=_TEST_SHARE, stratify=groups, random_state=_SPLIT_SEED
    )
    return Cells(photographs[train], thirds[train]), Cells(photographs[test], thirds[test])


def samples() -> Tensors:
    """Photographs of the test part, for verification, warm-up and load."""
    return {"photograph": split()[1].photographs[:_GOLDEN]}


def calibration() -> Tensors:
    """Photographs of the training part, to measure the ranges of activations on."""
    return {"photograph": split()[0].photographs[:_CALIBRATION]}


def evaluate(infer: Callable[[Tensors], Tensors]) -> dict[str, Any]:
    """What the model makes of the test part: how often it is right, and its confusion matrix."""
    test = split()[1]
    starts = range(0, len(test.labels), _BATCH)
    batches = [infer({"photograph": test.photographs[start : start + _BATCH]})["probabilities"] for start in starts]
    answers = np.concatenate(batches).argmax(axis=1)
    right, defective = answers == test.labels, test.labels == 1
    counts = np.zeros((2, 2), dtype=int)
    np.add.at(counts, (test.labels, answers), 1)
    return {
        "accuracy": right.mean(),
        "accuracy_sure": right[test.sure].mean(),  # where the expert was sure
        "recall": right[defective].mean(),  # of defective cells, those found
        "precision": counts[1, 1] / max(1, counts[:, 1].sum()),  # of those found, the defective ones
        "confusion": counts.tolist(),
    }
