"""The wine data that comes with scikit-learn: 178 wines of three growers, thirteen measurements, one fixed split."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = dict[str, NDArray[Any]]

_SPLIT_SEED = 0


@cache
def split() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any], NDArray[Any]]:
    """Measurements to fit on, measurements held out, and the growers of both. A quarter is held out."""
    from sklearn.datasets import load_wine
    from sklearn.model_selection import train_test_split

    wine = load_wine()
    growers = wine.target_names[wine.target]
    train, test, train_growers, test_growers = train_test_split(
        wine.data, growers, test_size=0.25, stratify=growers, random_state=_SPLIT_SEED
    )
    return train, test, train_growers, test_growers


def samples() -> Tensors:
    """Wines that the pipeline is not fitted on; ten thousand rows are drawn from them."""
    return {"measurements": split()[1].astype(np.float32)}


def evaluate(infer: Callable[[Tensors], Tensors]) -> dict[str, float]:
    """Accuracy on the wines held out; `infer` maps {"measurements"} to {"grower", "probabilities"}."""
    _, measurements, _, growers = split()
    found = infer({"measurements": measurements.astype(np.float32)})["grower"]
    return {"accuracy": float(np.mean([name.decode() == grower for name, grower in zip(found, growers, strict=True)]))}
