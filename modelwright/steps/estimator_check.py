"""Whether a graph answers as the library does that its estimator was fitted with, on thousands of rows.

Labels are equal and numbers within the tolerance, but for *ties*: rows that are decided by less than float32 can tell.
A row is a tie if

- only its label differs, and the two best scores that the library gives differ by no more than TIE; or
- the library itself gives the graph's answer once the numbers of the row are moved by the rounding of float32: by 1 or
  8 units in the last place, of the number or of the mean size of its column, which is what scaling subtracts. So it is
  where a number lies on the threshold of a tree.

More than LARGEST_SHARE of ties is an error: then the estimator as a whole needs more precision than clients send.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, VerifyError
from modelwright.facts.part import Integer, Number, Part
from modelwright.project.spec import Tolerance
from modelwright.steps.estimator_library import Library
from modelwright.text import counted

if TYPE_CHECKING:
    import numpy as np

    from modelwright.triton.tensors import Tensors

    Array = np.ndarray[Any, Any]

CLOSE = 1e-5  # of probabilities; of other numbers, times the largest one that the library gives
TIE = 2 * CLOSE
LARGEST_SHARE = 0.01
_UNITS = (1, 8)
_MIXED = 32  # ways to move all columns of a row at once, some up and some down
_SEED = 0
_EPSILON = 2.0**-23


@dataclass(frozen=True)
class GraphAnswer:
    """One output of the graph, and how the library is asked for the same."""

    name: str  # as model.yaml declares it
    method: str  # of the estimator: predict, predict_proba, …
    dims: tuple[int, ...] = (-1,)  # as declared, without the batch dimension


class Agreement(Part):
    """How the graph's answers agree with the library's."""

    rows: Integer
    rows_from: str  # "samples", or the entry that gave them
    ties: Integer  # rows that are decided by less than float32 can tell
    largest_difference: dict[str, Number]  # of each output that holds numbers, without the ties
    computes_in: str = "float32"  # more, in part or in all, where that is not close enough to the library


@dataclass(frozen=True)
class LibraryComparison:
    library: Library
    answers: Sequence[GraphAnswer]
    scores: str  # the method that gives the scores of classes; "" where there are none
    tolerance: Tolerance | None  # the builder's gate; None: CLOSE

    def expected(self, rows: Tensors) -> dict[str, Array]:
        return {answer.name: self.library.answer(answer.method, rows) for answer in self.answers}

    def check(self, run: Callable[[Tensors], Tensors], rows: Tensors, rows_from: str) -> Agreement:
        """Raises VerifyError, which names the worst row, and StepError for another shape. `run` is the graph."""
        import numpy as np

        expected, actual = self.expected(rows), run(rows)
        self._check_widths(expected, actual)
        allowed = {name: self._allowed(name, array) for name, array in expected.items()}
        wrong = {name: _wrong(array, actual[name], allowed[name]) for name, array in expected.items()}
        count = len(next(iter(rows.values())))
        different = np.flatnonzero(np.logical_or.reduce([*wrong.values(), np.zeros(count, bool)]))
        if len(different) > LARGEST_SHARE * count:
            raise _differs(different, count, expected, actual, wrong)
        ties = self._ties(different, rows, actual, wrong, allowed)
        if not ties.all():
            raise _differs(different[~ties], count, expected, actual, wrong)
        kept = np.ones(count, bool)
        kept[different] = False
        largest = {
            name: _largest(array[kept], actual[name][kept]) for name, array in expected.items() if _number(array)
        }
        return Agreement(rows=count, rows_from=rows_from, ties=len(different), largest_difference=largest)

    def check_samples(self, run: Callable[[Tensors], Tensors], samples: Tensors) -> None:
        """Golden samples are compared strictly, in every server: none may be a tie. Raises VerifyError."""
        expected, actual = self.expected(samples), run(samples)
        for name, array in expected.items():
            for index in _wrong(array, actual[name], self._allowed(name, array)).nonzero()[0][:1]:
                said = f"the library says {_shown(array[index])}, the graph {_shown(actual[name][index])}"
                hint = "it is decided by less than float32 can tell: take another one"
                raise VerifyError(f"golden sample {index}: '{name}': {said}", hint)

    def _check_widths(self, expected: Tensors, actual: Tensors) -> None:
        """Raise StepError where a row is declared, or converted, with more or fewer values than the library gives."""
        for answer in self.answers:
            array, declared = expected[answer.name], math.prod(answer.dims)
            width = array.size // max(len(array), 1)
            if actual[answer.name].size != array.size or (declared >= 0 and declared != width):
                reason = f"output '{answer.name}' is declared as {list(answer.dims)}; {answer.method} gives"
                hint = f"its shape is [{width}]; labels are INT64, or BYTES where classes are strings"
                raise StepError(f"{reason} {counted(width, 'value')} a row", hint)

    def _allowed(self, name: str, expected: Array) -> Tolerance | None:
        """None: the values must be equal."""
        import numpy as np

        if not _number(expected):
            return None
        if self.tolerance:
            return self.tolerance
        if self._is_probability(name):
            return Tolerance(atol=CLOSE)
        largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0))
        return Tolerance(atol=CLOSE * max(largest, CLOSE))

    def _is_probability(self, name: str) -> bool:
        return any(answer.method == "predict_proba" for answer in self.answers if answer.name == name)

    def _ties(
        self,
        different: Array,
        rows: Tensors,
        actual: Tensors,
        wrong: Mapping[str, Array],
        allowed: Mapping[str, Tolerance | None],
    ) -> Array:
        """Which of the rows that differ are ties."""
        import numpy as np

        ties = np.zeros(len(different), bool)
        if not len(different):
            return ties
        part = {name: array[different] for name, array in rows.items()}
        given = {name: actual[name][different] for name in allowed}
        numbers = [wrong[name][different] for name, tolerance in allowed.items() if tolerance]
        labels_only = ~np.logical_or.reduce([*numbers, np.zeros(len(different), bool)])
        if self.scores:
            ties |= labels_only & (_margin(self.library.answer(self.scores, part)) <= TIE)
        for moved in moved_rows(part, rows):
            if ties.all():
                break
            answers = self.expected(moved)
            fits = [~_wrong(answers[name], given[name], tolerance) for name, tolerance in allowed.items()]
            ties |= np.logical_and.reduce(fits)
        return ties


def moved_rows(part: Tensors, rows: Tensors) -> Iterator[Tensors]:
    """The same rows with their fractions moved by the rounding of float32: all up, all down, each column, and mixed."""
    import numpy as np

    names = [name for name, array in part.items() if array.dtype.kind == "f"]
    widths = [int(np.prod(part[name].shape[1:])) for name in names]
    total = sum(widths)
    if not total:
        return
    generator = np.random.default_rng(_SEED)
    signs = [np.ones(total), -np.ones(total), *np.eye(total), *-np.eye(total)]
    signs += [generator.choice([-1.0, 1.0], total) for _ in range(_MIXED)]
    for units in _UNITS:
        for sign in signs:
            pieces = dict(zip(names, np.split(sign, np.cumsum(widths)[:-1]), strict=True))
            yield part | {name: _moved(part[name], rows[name], units * pieces[name]) for name in names}


def _moved(array: Array, column: Array, units: Array) -> Array:
    """In float64: a move may be smaller than the distance to the next float32 number."""
    import numpy as np

    typical = np.nanmean(np.abs(column.astype(np.float64)), axis=0)
    size = np.maximum(np.abs(array.astype(np.float64)), typical)
    moved: Array = array.astype(np.float64) + _EPSILON * size * units.reshape(array.shape[1:])
    return moved


def _margin(scores: Array) -> Array:
    """By how much the best class leads; the score of two classes can be one number, whose sign decides."""
    import numpy as np

    if scores.ndim == 1:
        return np.abs(scores)
    best: Array = np.sort(scores, axis=1)
    return best[:, -1] - best[:, -2] if scores.shape[1] > 1 else np.abs(scores[:, 0])


def _number(array: Array) -> bool:
    return bool(array.dtype.kind == "f")


def _wrong(expected: Array, actual: Array, tolerance: Tolerance | None) -> Array:
    """Which rows differ. Both are (N, …) with as many values a row."""
    import numpy as np

    expected, actual = _flat(expected), _flat(actual)
    if tolerance is None:
        return np.asarray((expected != actual).any(axis=1))
    difference = _difference(expected, actual)
    allowed = tolerance.atol + tolerance.rtol * np.abs(expected.astype(np.float64))
    return np.asarray(~(difference <= allowed).all(axis=1))


def _difference(expected: Array, actual: Array) -> Array:
    """Of float64; NaN where only one is NaN, 0 where both are."""
    import numpy as np

    one, other = expected.astype(np.float64), actual.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        return np.where(same, 0.0, np.abs(one - other))


def _largest(expected: Array, actual: Array) -> float:
    return float(_difference(_flat(expected), _flat(actual)).max(initial=0))


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1)


def _differs(
    different: Array, count: int, expected: Tensors, actual: Tensors, wrong: Mapping[str, Array]
) -> VerifyError:
    """Names the output and the row, and what both say."""
    row = int(different[0])
    name = next(name for name in expected if wrong[name][row])
    said = f"the library says {_shown(expected[name][row])}, the graph {_shown(actual[name][row])}"
    message = f"'{name}' differs from the library in {len(different):,} of {count:,} rows; in row {row} {said}"
    return VerifyError(message, f"{_FEW if len(different) <= LARGEST_SHARE * count else _MANY}; {_HINT}")


_FEW = "no row may be decided by less than float32 can tell: fit it on float32 numbers, or on rounded ones"
_MANY = (
    "so many are more than rounding: the converter makes something else of this estimator, or its numbers are too large"
    " for float32: take other options of it, another one, or scale its numbers"
)
_HINT = (
    "if the graph is good enough, gates.tolerance allows more; source.kind python with requirements: [scikit-learn]"
    " serves the library itself"
)


def _shown(value: Any) -> str:
    import numpy as np

    items = np.asarray(value, dtype=getattr(value, "dtype", object)).ravel()[:4].tolist()
    texts = [item.decode() if isinstance(item, bytes) else f"{item:.6g}" for item in items]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
