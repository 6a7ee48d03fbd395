"""Names of features in XGBoost: its converter takes none, and a model that was fitted on a DataFrame has them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def without_feature_names(estimators: Iterable[Any]) -> Iterator[None]:
    """Take the names from the models of XGBoost in the block: trees then call features by their number."""
    boosters = [each.get_booster() for each in estimators if type(each).__module__.partition(".")[0] == "xgboost"]
    names = [booster.feature_names for booster in boosters]
    for booster in boosters:
        booster.feature_names = None
    try:
        yield
    finally:
        for booster, kept in zip(boosters, names, strict=True):
            booster.feature_names = kept
