"""The rows on which a graph is compared with the library that it was converted from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelwright.kinds.estimators import FittedSource
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.samples import as_declared, as_samples, load_samples
from modelwright.verification.samples import stacked

if TYPE_CHECKING:
    import numpy as np

    from modelwright.triton.tensors import Tensors

    Array = np.ndarray[Any, Any]

LEAST_ROWS = 10_000
_SEED = 0
_ZEROS = 1 / 16


def compared_rows(context: StepContext) -> tuple[Tensors, str]:
    """At least LEAST_ROWS rows, {input: (N, *shape)}, and where they come from: `rows`, or the golden samples."""
    entry = context.source(FittedSource).rows if isinstance(context.builder.spec.source, FittedSource) else None
    if entry is None:
        return filled(stacked(load_samples(context, {})), LEAST_ROWS), "samples"
    where = f"{context.builder.file}: source.rows {entry}"
    given = as_samples(call(context, "source.rows", entry), where)
    return filled(stacked(as_declared(given, context.builder.spec.inputs, where)), LEAST_ROWS), entry


def filled(rows: Tensors, least: int) -> Tensors:
    """The rows, and after them drawn ones until there are `least`: each column by itself, seeded."""
    import numpy as np

    generator = np.random.default_rng(_SEED)
    missing = least - len(next(iter(rows.values())))
    if missing <= 0:
        return rows
    return {name: np.concatenate([array, _drawn(array, missing, generator)]) for name, array in rows.items()}


def _drawn(array: Array, count: int, generator: np.random.Generator) -> Array:
    import numpy as np

    columns = array.reshape(len(array), -1)
    drawn = [_column(column, count, generator) for column in columns.T]
    return np.stack(drawn, axis=1).astype(array.dtype).reshape(count, *array.shape[1:])


def _column(values: Array, count: int, generator: np.random.Generator) -> Array:
    """Values of a column; where they are fractions, half of them lie anywhere between its smallest and largest.

    Some of these are exactly 0, where that lies between: libraries may take it as a missing value.
    """
    import numpy as np

    picked: Array = values[generator.integers(0, len(values), count)]
    if values.dtype.kind != "f":
        return picked
    finite = values[np.isfinite(values)]
    if not finite.size or np.array_equal(finite, np.rint(finite)):
        return picked  # counts and codes: other numbers may mean nothing
    anywhere = generator.uniform(finite.min(), finite.max(), count).astype(values.dtype)
    if finite.min() <= 0 <= finite.max():
        anywhere[generator.random(count) < _ZEROS] = 0
    return np.where(generator.random(count) < 0.5, anywhere, picked)
