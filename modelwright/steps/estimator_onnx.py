"""A fitted estimator → ONNX, by skl2onnx and onnxmltools, with the inputs and outputs that model.yaml declares.

The opsets are those that the oldest onnxruntime of all Triton releases loads. There is no ZipMap: probabilities are a
tensor. A converter that the builder's own code registers with skl2onnx is used, too.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from modelwright.errors import StepError, one_line
from modelwright.project.spec import OutputSpec, TensorSpec
from modelwright.steps.estimator_check import GraphAnswer
from modelwright.steps.estimator_converters import register_converters, unsupported
from modelwright.steps.estimator_graph import Produced, finish
from modelwright.steps.estimator_library import Library, class_name, last_step, takes_columns
from modelwright.steps.estimator_scalers import exact_scalers
from modelwright.steps.estimator_trees import score_both_classes
from modelwright.steps.lightgbm_booster import LightGbmBooster, lightgbm_of, with_exact_thresholds
from modelwright.steps.xgboost_names import without_feature_names

if TYPE_CHECKING:
    from onnx import ModelProto

    from modelwright.triton.releases import Release

ML_DOMAIN = "ai.onnx.ml"
_OPSETS = {"": 18, ML_DOMAIN: 3}
_WORDS = r"[\p{L}\p{N}_]{2,}"  # what the default token_pattern matches, in the syntax of the operator
_JOINED = "features"  # the tensor of all columns, where the estimator takes one
_TYPES = {
    "FP32": "FloatTensorType",
    "FP64": "DoubleTensorType",
    "INT64": "Int64TensorType",
    "INT32": "Int32TensorType",
    "BOOL": "BooleanTensorType",
    "BYTES": "StringTensorType",
}
# What a graph computes in, whatever clients send; the fastest first.
Precision = Literal["float32", "float32, scaled in float64", "float64"]
FLOAT32: Precision = "float32"
EXACT_SCALING: Precision = "float32, scaled in float64"
FLOAT64: Precision = "float64"
PRECISIONS: tuple[Precision, ...] = (FLOAT32, EXACT_SCALING, FLOAT64)
_WIDE = _TYPES | {"FP32": "DoubleTensorType"}


@dataclass(frozen=True)
class Converted:
    model: ModelProto
    answers: tuple[GraphAnswer, ...]
    scores: str  # the method that gives the scores of classes; "" where there are none


def onnx_from_estimator(
    library: Library,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[OutputSpec],
    release: Release,
    *,
    precision: Precision = FLOAT32,
) -> Converted:
    """Convert, and give the graph the declared tensors. `precision`: in what it computes.

    Raises StepError for an estimator that no converter takes, which it names, and for outputs that there are not.
    """
    estimator, where = library.estimator, library.where
    for spec in inputs:
        if spec.dtype not in _TYPES:
            raise StepError(f"{where}: input '{spec.name}' is {spec.dtype}", f"converters take {', '.join(_TYPES)}")
    register_converters()
    _check_known(estimator, where)
    opsets = _OPSETS | {"": min(_OPSETS[""], release.max_opset)}
    with _converting(estimator, where), without_feature_names(part for _, part in parts(estimator)):
        initial = _initial(library, inputs, _WIDE if precision == FLOAT64 else _TYPES)
        model = _convert(estimator, initial, opsets, precision)
        booster = lightgbm_of(last_step(estimator))
        if booster is not None:
            with_exact_thresholds(model, booster)
        score_both_classes(model)
    roles = [
        Produced(value.name, method) for value, method in zip(model.graph.output, methods(estimator), strict=False)
    ]
    ordered = in_order(inputs, library.names) or inputs
    answers = finish(model, ordered, outputs, roles, _columns(library, inputs), where)
    model.ir_version = min(model.ir_version, release.max_ir)
    return Converted(model, answers, scores_of(estimator))


def methods(estimator: Any) -> tuple[str, ...]:
    """The methods of the estimator that say what the graph's outputs are, in the order of the converter."""
    from sklearn.base import is_clusterer, is_outlier_detector

    if _is_classifier(estimator):
        return ("predict", scores_of(estimator))
    if _is_regressor(estimator):
        return ("predict",)
    if is_outlier_detector(estimator):
        return ("predict", "decision_function")
    if is_clusterer(estimator):
        return ("predict", "transform")
    return ("transform",)


def scores_of(estimator: Any) -> str:
    """predict_proba, or decision_function where there are no probabilities; "" where it has no classes."""
    if not _is_classifier(estimator):
        return ""
    return next((name for name in ("predict_proba", "decision_function") if hasattr(estimator, name)), "")


def _is_classifier(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    if isinstance(estimator, LightGbmBooster):
        return estimator.is_classifier
    return bool(is_classifier(estimator))


def _is_regressor(estimator: Any) -> bool:
    from sklearn.base import is_regressor

    if isinstance(estimator, LightGbmBooster):
        return not estimator.is_classifier
    ranks = "Ranker" in type(last_step(estimator)).__name__  # LGBMRanker and XGBRanker are of no type of scikit-learn
    return ranks or bool(is_regressor(estimator))


def _convert(
    estimator: Any, initial: list[tuple[str, Any]], opsets: dict[str, int], precision: Precision
) -> ModelProto:
    if isinstance(estimator, LightGbmBooster):
        return estimator.converted(initial)
    from skl2onnx import convert_sklearn

    functions, shapes = exact_scalers() if precision == EXACT_SCALING else (None, None)

    def convert(options: dict[int, dict[str, Any]]) -> ModelProto:
        with _votes_unflattened(estimator):
            model: ModelProto = convert_sklearn(
                estimator,
                initial_types=initial,
                options=options,
                target_opset=opsets,
                custom_conversion_functions=functions,
                custom_shape_calculators=shapes,
            )
        return model

    last, texts = id(last_step(estimator)), _text_options(estimator)
    if not _is_classifier(estimator):
        return convert(texts)
    try:
        return convert({**texts, last: {"zipmap": False}})
    except NameError:  # how skl2onnx says that this one has no ZipMap; it must have options all the same
        return convert({**texts, last: {}})


def _text_options(estimator: Any) -> dict[int, dict[str, Any]]:
    """Of vectorisers of texts: a locale, as without one the operator takes en_US, which containers do not have; and
    scikit-learn's own words, for which the converter takes those of ASCII."""
    from sklearn.feature_extraction.text import CountVectorizer

    found = [part for _, part in parts(estimator) if isinstance(part, CountVectorizer)]
    words = (CountVectorizer().analyzer, CountVectorizer().token_pattern)
    return {
        id(part): {"locale": "C.UTF-8"} | ({"tokenexp": _WORDS} if (part.analyzer, part.token_pattern) == words else {})
        for part in found
    }


@contextlib.contextmanager
def _votes_unflattened(estimator: Any) -> Iterator[None]:
    """The converter refuses `flatten_transform`, the default, which says nothing of what is predicted."""
    from sklearn.ensemble import VotingClassifier

    votes = [part for _, part in parts(estimator) if isinstance(part, VotingClassifier) and part.flatten_transform]
    for vote in votes:
        vote.flatten_transform = False
    try:
        yield
    finally:
        for vote in votes:
            vote.flatten_transform = True


def _columns(library: Library, inputs: Sequence[TensorSpec]) -> tuple[str, ...]:
    """The columns that one declared tensor is split into; none where it is not."""
    split = len(inputs) == 1 and library.names and takes_columns(library.estimator) and inputs[0].dims != [1]
    return library.names if split else ()


def _initial(library: Library, inputs: Sequence[TensorSpec], types: Mapping[str, str]) -> list[tuple[str, Any]]:
    """What the converter is told of the inputs."""
    from skl2onnx.common import data_types

    def typed(name: str, dtype: str, width: int) -> tuple[str, Any]:
        return name, getattr(data_types, types[dtype])([None, width])

    if columns := _columns(library, inputs):
        return [typed(name, inputs[0].dtype, 1) for name in columns]
    if len(inputs) == 1:
        return [typed(inputs[0].name, inputs[0].dtype, inputs[0].dims[0])]
    ordered = in_order(inputs, library.names)
    if takes_columns(library.estimator):
        return [typed(spec.name, spec.dtype, spec.dims[0]) for spec in ordered]
    return [typed(_JOINED, joined_type(ordered, library.where), sum(spec.dims[0] for spec in ordered))]


def in_order(inputs: Sequence[TensorSpec], names: Sequence[str]) -> list[TensorSpec]:
    """The inputs in the order of the columns that an estimator was fitted on."""
    by_name = {spec.name: spec for spec in inputs}
    return [by_name[name] for name in names if name in by_name] if names else list(inputs)


def joined_type(inputs: Sequence[TensorSpec], where: str) -> str:
    """The type of the one tensor that holds all columns."""
    types = {spec.dtype for spec in inputs}
    if len(types) == 1:
        return types.pop()
    if "BYTES" in types:
        hint = "pick columns with a ColumnTransformer: OneHotEncoder for strings, for instance"
        raise StepError(
            f"{where}: inputs are strings and numbers, and the first step takes one table of one type", hint
        )
    return "FP64" if "FP64" in types else "FP32"


def _check_known(estimator: Any, where: str) -> None:
    from skl2onnx._supported_operators import sklearn_operator_name_map

    for place, part in parts(estimator):
        known = type(part) in sklearn_operator_name_map or isinstance(part, LightGbmBooster)
        if not known:
            raise StepError(f"{where}: no converter takes {class_name(part)}{place}", _NO_CONVERTER)
        reason, instead = unsupported(part)
        if reason:
            raise StepError(f"{where}: {class_name(part)}{place} cannot be converted: {reason}", instead)


def parts(estimator: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """(where it stands, estimator) of everything that must be converted."""
    if hasattr(estimator, "named_steps"):
        inner = list(estimator.steps)
    elif hasattr(estimator, "transformers_"):
        inner = [(name, step) for name, step, _ in estimator.transformers_]
    elif hasattr(estimator, "transformer_list"):
        inner = list(estimator.transformer_list)
    else:
        inner = [(name, step) for name in _INNER for step in _several(getattr(estimator, name, None))]
        yield place, estimator
    for name, step in inner:
        if step is not None and not isinstance(step, str):
            yield from parts(step, f"{place}, in '{name}'" if place else f", which is '{name}'")


# Where estimators that are made of others keep them.
_INNER = ("best_estimator_", "estimator_", "estimators_", "final_estimator_", "regressor_")


def _several(value: Any) -> list[Any]:
    import numpy as np

    if value is None or isinstance(value, str):
        return []
    found = list(np.ravel(np.asarray(value, dtype=object))) if isinstance(value, list | tuple | np.ndarray) else [value]
    return [item for item in found[:1] if hasattr(item, "get_params")] if len(found) > _MANY else found


_MANY = 16  # a forest: its trees are alike

_NO_CONVERTER = (
    "choose an estimator that skl2onnx or onnxmltools converts; or register a converter for it in the builder's code"
    " (skl2onnx.update_registered_converter); or source.kind python with requirements: [scikit-learn], which runs it as"
    " it is"
)


@contextlib.contextmanager
def _converting(estimator: Any, where: str) -> Iterator[None]:
    """Whatever a converter raises means that it cannot convert: they have no exception of their own for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except StepError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:400]}"
        raise StepError(f"{where}: {class_name(estimator)} cannot be converted: {reason}", _NO_CONVERTER) from error
