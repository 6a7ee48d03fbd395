"""Small trees, each of which may use a part of the features."""

from __future__ import annotations

from data import split
from lightgbm import LGBMClassifier


def train(trees: int, leaves: int, features: float, seed: int) -> LGBMClassifier:
    """The entry: called with source.params."""
    nuclei, _, labels, _ = split()
    model = LGBMClassifier(
        n_estimators=trees,
        num_leaves=leaves,
        colsample_bytree=features,
        subsample=0.7,
        subsample_freq=1,
        random_state=seed,
        n_jobs=1,
        deterministic=True,
        verbose=-1,
    )
    return model.fit(nuclei, labels)
