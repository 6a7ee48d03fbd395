"""A confusion matrix that `evaluate` may return beside its metrics: counts, what is true by what the model says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.errors import StepError

CONFUSION = "confusion"  # its name in what `evaluate` returns
_MOST_CLASSES = 200
Confusion = tuple[tuple[int, ...], ...]


def confusion_from(returned: Mapping[str, Any], where: str) -> Confusion:
    """The matrix in what `evaluate` returned; empty where there is none. Raises StepError for what is no square of
    whole numbers; `where` is how messages call the function."""
    if CONFUSION not in returned:
        return ()
    counts = _counts(returned[CONFUSION])
    if not counts or any(len(row) != len(counts) or min(row) < 0 for row in counts):
        hint = "return counts: one row for each true class, one column for each class that the model says"
        raise StepError(f"{where}: confusion: expected a square of whole numbers", hint)
    if len(counts) > _MOST_CLASSES:
        raise StepError(
            f"{where}: confusion: at most {_MOST_CLASSES} classes are kept, got {len(counts)}", "leave it out"
        )
    return counts


def _counts(given: Any) -> Confusion:
    """Nothing for what does not consist of whole numbers."""
    try:
        values = [[float(value) for value in row] for row in given]
        counts = tuple(tuple(map(int, row)) for row in values)
    except (TypeError, ValueError, OverflowError):
        return ()
    return counts if [list(map(float, row)) for row in counts] == values else ()
