"""What the library itself answers: a fitted estimator of scikit-learn, XGBoost or LightGBM, asked for declared tensors.

    library = Library.of(estimator, spec.inputs, where)       # checks that it is fitted, and on which columns
    library.answer("predict_proba", tensors)                  # (N, …)

Clients send float32. The library gets the same numbers in float64, which holds each of them exactly: that is what it is
fitted with unless someone converts. A pipeline that was fitted on a DataFrame gets one, with the types of the inputs.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, one_line
from modelwright.project.spec import TensorSpec
from modelwright.steps.lightgbm_booster import LightGbmBooster
from modelwright.suggest import did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from modelwright.triton.tensors import Tensors

    Array = np.ndarray[Any, Any]

_ANSWERS = ("predict", "transform")
_WIDER = {"FP16": "float64", "BF16": "float64", "FP32": "float64"}


@dataclass(frozen=True)
class Library:
    """A fitted estimator, and how declared tensors become what it takes."""

    estimator: Any
    inputs: tuple[TensorSpec, ...]
    names: tuple[str, ...]  # of the columns that it was fitted on; none where it was fitted on arrays
    texts: bool  # whether it takes a list of texts, as a vectoriser does
    where: str

    @classmethod
    def of(cls, estimator: Any, inputs: Sequence[TensorSpec], where: str) -> Library:
        """Raises StepError for an estimator that is not fitted, or was fitted on other columns than are declared."""
        check_fitted(estimator, where)
        names = tuple(map(str, getattr(estimator, "feature_names_in_", ())))
        texts = hasattr(first_step(estimator), "vocabulary_") or hasattr(first_step(estimator), "build_analyzer")
        library = cls(estimator, tuple(inputs), names if _by_name(estimator, inputs) else (), texts, where)
        _check_columns(library, names)
        return library

    def answer(self, method: str, tensors: Tensors) -> Array:
        """What a method of the estimator returns for rows, {input: (N, *shape)}. Raises StepError."""
        import numpy as np

        try:
            returned = self._asked(method, self._table(tensors))
        except Exception as error:  # whatever a transformer of the builder raises
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise StepError(f"{self.where}: {method} fails on {_count(tensors)} rows: {reason}", _ROWS_HINT) from error
        if hasattr(returned, "toarray"):  # a sparse matrix
            returned = returned.toarray()
        return _plain(np.asarray(returned))

    def _asked(self, method: str, table: Any) -> Any:
        """Some take only the type that they were fitted with, as KMeans does: then they get float32."""
        import numpy as np

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that arrays do not have
            ask = getattr(self.estimator, method)
            try:
                return ask(table)
            except ValueError:
                if getattr(table, "dtype", None) != np.float64:
                    raise
                with contextlib.suppress(Exception):
                    return ask(table.astype(np.float32))
                raise

    def _table(self, tensors: Tensors) -> Any:
        """The rows as the estimator takes them: a matrix, a DataFrame or a list of texts."""
        import numpy as np

        if self.texts:
            return [str(text) for text in _cells(tensors[self.inputs[0].name], "BYTES").ravel()]
        cells = {spec.name: _cells(tensors[spec.name], spec.dtype) for spec in self.inputs}
        if self.names:
            return _frame(cells, self.names)
        return np.concatenate(_one_type(list(cells.values())), axis=1)


_ROWS_HINT = "golden samples and `rows` must hold what it takes; see the message of the library"


def first_step(estimator: Any) -> Any:
    """What gets the inputs: the first step of a Pipeline that does something."""
    steps = getattr(estimator, "steps", None)
    if steps is None or not hasattr(estimator, "named_steps"):
        return estimator
    real = [step for _, step in steps if step is not None and step != "passthrough"]
    return first_step(real[0]) if real else estimator


def last_step(estimator: Any) -> Any:
    """What gives the answers: the last step of a Pipeline."""
    steps = getattr(estimator, "steps", None)
    return last_step(steps[-1][1]) if steps and hasattr(estimator, "named_steps") else estimator


def takes_columns(estimator: Any) -> bool:
    """Whether it picks columns itself, as a ColumnTransformer does."""
    return hasattr(first_step(estimator), "transformers_")


def class_name(estimator: Any) -> str:
    """`sklearn.pipeline.Pipeline`."""
    return f"{type(estimator).__module__}.{type(estimator).__qualname__}"


def check_fitted(estimator: Any, where: str) -> None:
    """Raise StepError for what is no estimator, and for one that is not fitted."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if hasattr(estimator, "fit_predict") and not any(map(partial(hasattr, estimator), _ANSWERS)):
        reason = f"{class_name(estimator)} gives labels to what it is fitted on, and to no other rows"
        raise StepError(f"{where}: {reason}", "an estimator with predict, as KMeans has")
    if not any(map(partial(hasattr, estimator), _ANSWERS)) or isinstance(estimator, type):
        got = f"the class {estimator.__name__}" if isinstance(estimator, type) else class_name(estimator)
        raise StepError(f"{where}: expected a fitted estimator, got {got}", "return what .fit(…) returns")
    if isinstance(estimator, LightGbmBooster):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_is_fitted(estimator)
    except NotFittedError:
        raise StepError(
            f"{where}: {class_name(estimator)} is not fitted", "call .fit(…) before it is returned"
        ) from None
    except TypeError:
        pass  # not of scikit-learn: its methods will say


def _by_name(estimator: Any, inputs: Sequence[TensorSpec]) -> bool:
    """Whether the estimator is asked with a DataFrame: it was fitted with one, and pandas is here."""
    return hasattr(estimator, "feature_names_in_")


def _check_columns(library: Library, names: tuple[str, ...]) -> None:
    if library.texts:
        _check_text(library)
        return
    for spec in library.inputs:
        if len(spec.dims) != 1 or spec.dims[0] < 1:
            hint = "one tensor [n_features], or one input a column, of shape [1]"
            raise StepError(f"{library.where}: input '{spec.name}' has shape {list(spec.shape)}", hint)
    single = len(library.inputs) == 1 and library.inputs[0].dims[0] > 1
    if names and not single:
        _check_names(library, names)
    else:
        _check_count(library, len(names) or int(getattr(library.estimator, "n_features_in_", 0)))


def _check_text(library: Library) -> None:
    inputs = library.inputs
    if len(inputs) != 1 or inputs[0].dtype != "BYTES" or inputs[0].dims != [1]:
        hint = "inputs: [{name: text, dtype: BYTES, shape: [1]}]"
        raise StepError(f"{library.where}: it takes texts: {class_name(first_step(library.estimator))}", hint)


def _check_names(library: Library, names: tuple[str, ...]) -> None:
    declared = [spec.name for spec in library.inputs]
    missing = [name for name in names if name not in declared and name not in _dropped(library.estimator)]
    unknown = [name for name in declared if name not in names]
    if missing or unknown:
        reason = f"was fitted on the columns {_listed(names)}; model.yaml declares {_listed(declared)}"
        hint = did_you_mean(unknown[0], missing or names) if unknown else f"declare '{missing[0]}' among the inputs"
        raise StepError(f"{library.where}: {reason}", hint)
    wide = next((spec for spec in library.inputs if spec.dims != [1]), None)
    if wide:
        raise StepError(f"{library.where}: input '{wide.name}' is one column, so its shape is [1]")


def _check_count(library: Library, expected: int) -> None:
    found = sum(spec.dims[0] for spec in library.inputs)
    if expected and found != expected:
        declared = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in library.inputs)
        reason = f"was fitted on {expected} features; model.yaml declares {found}: {declared}"
        raise StepError(f"{library.where}: {reason}", f"inputs with {expected} numbers in all; or fit it on these")


def _dropped(estimator: Any) -> set[str]:
    """The columns that a ColumnTransformer does not use."""
    used: set[str] = set()
    names = list(map(str, getattr(estimator, "feature_names_in_", ())))
    for _, step, columns in getattr(first_step(estimator), "transformers_", ()):
        if isinstance(step, str) and step == "drop":
            continue
        for column in [columns] if isinstance(columns, str) else columns:
            used.add(column if isinstance(column, str) else names[int(column)])
    return set(names) - used if takes_columns(estimator) else set()


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _cells(array: Array, dtype: str) -> Array:
    """(N, columns): strings as str, floats in float64."""
    import numpy as np

    array = array.reshape(len(array), -1)
    if dtype != "BYTES":
        return array.astype(_WIDER.get(dtype, array.dtype))
    cells = np.empty(array.shape, dtype=object)
    cells.ravel()[:] = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    return cells


def _one_type(columns: list[Array]) -> list[Array]:
    """Strings beside numbers make an array of objects."""
    mixed = any(column.dtype == object for column in columns)
    return [column.astype(object) for column in columns] if mixed else columns


def _frame(cells: dict[str, Array], names: tuple[str, ...]) -> Any:
    try:
        import pandas
    except ImportError:
        reason = "the estimator was fitted on a DataFrame, so it must be asked with one: pandas is not installed"
        raise StepError(reason, "pip install pandas; or fit it on arrays: frame.to_numpy()") from None
    if len(cells) == 1 and len(names) > 1:
        return pandas.DataFrame(next(iter(cells.values())), columns=list(names))
    return pandas.DataFrame({name: cells[name][:, 0].tolist() for name in names if name in cells}).astype(
        {name: cells[name].dtype for name in names if name in cells and cells[name].dtype != object}
    )


def _plain(array: Array) -> Array:
    """Answers as tensors have them: strings are objects of bytes, classes that are true or false are numbers."""
    import numpy as np

    if array.dtype.kind not in "OUST":
        return array.astype(np.int64) if array.dtype.kind == "b" else array
    flat = [str(item).encode() for item in array.ravel()]
    encoded = np.empty(len(flat), dtype=object)
    encoded[:] = flat
    return encoded.reshape(array.shape)


def _count(tensors: Tensors) -> int:
    return len(next(iter(tensors.values())))
