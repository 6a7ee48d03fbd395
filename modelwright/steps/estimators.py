"""source.kind sklearn, xgboost and lightgbm: fit or load an estimator, convert it to ONNX, compare it with the library.

made = export_estimator(context, estimator, out, where)    # for whoever has an estimator
"""

from __future__ import annotations

import contextlib
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import ModelwrightError, StepError, VerifyError, located, one_line
from modelwright.facts.made import Made
from modelwright.facts.part import Facts
from modelwright.kinds.estimators import ESTIMATOR, FittedSource
from modelwright.onnx.canonical import save_canonical
from modelwright.onnx.check import read_signature
from modelwright.onnx.runtime import load_session, run_session
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call, make_importable
from modelwright.steps.estimator_check import Agreement, LibraryComparison
from modelwright.steps.estimator_files import as_estimator, load_estimator
from modelwright.steps.estimator_library import Library, check_fitted, class_name
from modelwright.steps.estimator_onnx import PRECISIONS, Precision, onnx_from_estimator
from modelwright.steps.estimator_rows import compared_rows
from modelwright.steps.files import source_path
from modelwright.steps.onnx import made
from modelwright.steps.samples import load_samples
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.tensors import Tensors, save_tensors
from modelwright.verification.samples import pack, stacked, unstacked

if TYPE_CHECKING:
    from modelwright.project.spec import OutputSpec

_FILE = "estimator.pkl"
_CHUNK = 4096


class Fitted(Facts):
    estimator: str  # its class


def fit(context: StepContext, out: Path) -> Fitted:
    """Call the source's entry; keep the estimator that it returns, as a pickle of our own store."""
    source = context.source(FittedSource)
    where = f"{context.builder.file}: source.entry {source.entry}"
    with threads(source.threads):
        estimator = call(context, "source.entry", str(source.entry), **source.params)
    check_fitted(as_estimator(estimator), where)
    try:
        (out / _FILE).write_bytes(pickle.dumps(estimator, protocol=5))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        hint = "classes and functions that an estimator holds must be defined at the top of a file: no lambda"
        raise StepError(f"{where}: the estimator cannot be stored: {one_line(error)}", hint) from None
    return Fitted(estimator=class_name(estimator))


def export(context: StepContext, out: Path) -> Made:
    """Convert the estimator that the entry returned, or that a file holds."""
    source = context.source(FittedSource)
    if source.path is None:
        where = f"{context.builder.file}: source.entry {source.entry}"
        make_importable(context.builder.folder)
        estimator = pickle.loads((context.inputs[ESTIMATOR] / _FILE).read_bytes())  # noqa: S301  our own store's
    else:
        where = f"{context.builder.file}: source.path '{source.path}'"
        make_importable(context.builder.folder)
        file = source_path(context, "source.path", source.path)
        estimator = load_estimator(file, source.kind, where, trusted=getattr(source, "trusted", False))
    with threads(source.threads):
        return export_estimator(context, estimator, out, where)


def export_estimator(context: StepContext, estimator: Any, out: Path, where: str) -> Made:
    """Convert a fitted estimator to `version/model.onnx`; keep what the library answers to the golden samples.

    The graph is held against the library on 10,000 rows or more: `details` of the facts say how they agree. Raises
    StepError and VerifyError; `where` is how messages call the estimator.
    """
    library = Library.of(as_estimator(estimator), context.builder.spec.inputs, where)
    rows, rows_from = compared_rows(context)
    file = out / "version" / "model.onnx"
    file.parent.mkdir()
    with located(where):
        graph, agreement = _converted(context, library, rows, rows_from, file)
        context.say(f"{agreement.rows:,} rows agree with {class_name(library.estimator)}; {agreement.ties} ties")
        save_tensors(out / "expected.npz", pack(_expected(context, graph)))
    facts = made(read_signature(file), file, context)
    details = {"estimator": class_name(library.estimator), "compared": agreement.as_json()}
    return facts.model_copy(update={"details": details})


def _converted(
    context: StepContext, library: Library, rows: Tensors, rows_from: str, file: Path
) -> tuple[_Graph, Agreement]:
    """The graph, in `file`. It computes in float32; where that is not close enough to the library, partly or wholly
    in float64."""
    first: ModelwrightError | None = None
    for precision in PRECISIONS:
        try:
            graph = _Graph.written(context, library, file, precision)
            agreement = graph.comparison.check(graph.run, rows, rows_from)
            return graph, agreement.model_copy(update={"computes_in": precision})
        except VerifyError as error:
            first = first or error
        except StepError as error:
            if first is None:
                raise
            context.say(f"in {precision}: {error.message}")
    assert first is not None
    raise first


@dataclass(frozen=True)
class _Graph:
    """A graph of a library's estimator, and what it is compared by."""

    session: Any
    comparison: LibraryComparison

    @classmethod
    def written(cls, context: StepContext, library: Library, file: Path, precision: Precision) -> _Graph:
        spec = context.builder.spec
        made = onnx_from_estimator(library, spec.inputs, spec.outputs, context.target, precision=precision)
        save_canonical(made.model, file)
        return cls(load_session(file), LibraryComparison(library, made.answers, made.scores, spec.gates.tolerance))

    def run(self, rows: Tensors) -> Tensors:
        """The answers to many rows."""
        import numpy as np

        count = len(next(iter(rows.values())))
        parts = [
            run_session(self.session, {name: array[start : start + _CHUNK] for name, array in rows.items()})
            for start in range(0, count, _CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _expected(context: StepContext, graph: _Graph) -> list[Tensors]:
    """What the library answers to the golden samples, as model.yaml declares outputs."""
    samples = stacked(load_samples(context, {}))
    graph.comparison.check_samples(graph.run, samples)
    answers = graph.comparison.expected(samples)
    declared = {output.name: output for output in context.builder.spec.outputs}
    return unstacked({name: _as_declared(array, declared[name]) for name, array in answers.items()})


def _as_declared(array: Any, output: OutputSpec) -> Any:
    import numpy as np

    array = array.astype(np.dtype(BY_NAME[output.dtype].numpy))
    one_a_row = output.dims in ([], [1]) and array.size == len(array)
    return array.reshape(len(array), *output.dims) if one_a_row else array


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let the libraries use so many threads in the block: sums depend on it."""
    from threadpoolctl import threadpool_limits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of two OpenMP libraries in one process
        with threadpool_limits(count):
            yield
