"""Estimators become graphs that answer as the library: those that a converter or the runtime gets wrong by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import StepError, VerifyError
from modelwright.onnx.canonical import save_canonical
from modelwright.onnx.runtime import load_session, run_session
from modelwright.project.spec import OutputSpec, TensorSpec
from modelwright.steps.estimator_check import LibraryComparison
from modelwright.steps.estimator_files import as_estimator
from modelwright.steps.estimator_library import Library
from modelwright.steps.estimator_onnx import FLOAT32, FLOAT64, Precision, onnx_from_estimator
from modelwright.steps.estimator_rows import filled
from modelwright.triton.releases import TESTED_WITH, release
from modelwright.triton.tensors import Tensors

pytestmark = pytest.mark.torch

ROWS = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
CLASSES = np.where(ROWS[:, 0] + ROWS[:, 1] ** 2 > 0.6, "yes", "no").astype(object)
NUMBERS = [TensorSpec(name="x", dtype="FP32", shape=[4])]
TEXT = [TensorSpec(name="x", dtype="BYTES", shape=[1])]
LABELS = [
    OutputSpec(name="answer", dtype="BYTES", shape=[]),
    OutputSpec(name="probabilities", dtype="FP32", shape=[2]),
]
CLUSTERS = [OutputSpec(name="cluster", dtype="INT64", shape=[]), OutputSpec(name="far", dtype="FP32", shape=[3])]


def agreement(
    estimator: Any,
    folder: Path,
    rows: Tensors,
    inputs: list[TensorSpec] = NUMBERS,
    outputs: list[OutputSpec] = LABELS,
    precision: Precision = FLOAT32,
) -> float:
    """The largest difference of the graph from the library. Raises VerifyError where they disagree."""
    library = Library.of(estimator, inputs, "here")
    made = onnx_from_estimator(library, inputs, outputs, release(TESTED_WITH), precision=precision)
    save_canonical(made.model, folder / "model.onnx")
    session = load_session(folder / "model.onnx")
    comparison = LibraryComparison(library, made.answers, made.scores, None)
    found = comparison.check(lambda given: run_session(session, given), filled(rows, 2_000), "samples")
    return max(found.largest_difference.values())


def tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=2).fit(ROWS, CLASSES)


def forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(12, max_depth=4, random_state=0).fit(ROWS, CLASSES)


def vote() -> Any:
    """Of trees and others, with the default of flatten_transform."""
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression

    return VotingClassifier([("one", LogisticRegression()), ("two", tree())], voting="soft").fit(ROWS, CLASSES)


@pytest.mark.parametrize(
    ("fitted", "precision"),
    [(tree, FLOAT32), (forest, FLOAT32), (forest, FLOAT64), (vote, FLOAT32)],
    ids=["tree", "forest", "forest in float64", "vote"],
)
def test_trees_of_two_classes_agree(fitted: Callable[[], Any], precision: Precision, tmp_path: Path) -> None:
    assert agreement(fitted(), tmp_path, {"x": ROWS[:32]}, precision=precision) <= 1e-6


def test_a_vote_is_as_it_was_after_it_was_converted(tmp_path: Path) -> None:
    estimator = vote()
    agreement(estimator, tmp_path, {"x": ROWS[:32]})
    assert estimator.flatten_transform is True


def test_clusters_that_were_fitted_on_float32_agree(tmp_path: Path) -> None:
    """KMeans takes the type alone that it was fitted on."""
    from sklearn.cluster import KMeans

    clusters = KMeans(3, n_init=1, random_state=0).fit(ROWS)
    assert agreement(clusters, tmp_path, {"x": ROWS[:32]}, outputs=CLUSTERS) <= 1e-5


def test_columns_are_declared_in_any_order(tmp_path: Path) -> None:
    """Of a model that takes one table, which was fitted on a DataFrame."""
    import pandas
    from sklearn.tree import DecisionTreeClassifier

    frame = pandas.DataFrame({"age": ROWS[:, 0], "height": ROWS[:, 1] * 100})
    columns = [TensorSpec(name=name, dtype="FP32", shape=[1]) for name in ("height", "age")]
    rows = {name: frame[name].to_numpy()[:32, None] for name in ("height", "age")}
    fitted = DecisionTreeClassifier(max_depth=3, random_state=0).fit(frame, CLASSES)
    assert agreement(fitted, tmp_path, rows, columns) <= 1e-6


def test_texts_agree_in_any_language(tmp_path: Path) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    texts = ["Zürich is a city", "东京 is a city", "a naïve ÉTÉ", "Genève a l'été", "x_y 2nd a", "ÅLESUND a b c"]
    words = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), MultinomialNB()).fit(texts, ["yes", "no"] * 3)
    rows = np.array([*texts, "", "zürich", "never seen"], dtype=object)[:, None]
    assert agreement(words, tmp_path, {"x": rows}, TEXT) <= 1e-5


@pytest.mark.parametrize("name", ["SVC", "LinearSVC", "SGD"])
def test_the_score_of_two_classes_is_one_number(name: str, tmp_path: Path) -> None:
    """As decision_function gives it; converters give it once, or twice in either order."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.svm import SVC, LinearSVC

    estimators = {"SVC": SVC(), "LinearSVC": LinearSVC(), "SGD": SGDClassifier(random_state=0)}
    fitted = estimators[name].fit(ROWS, CLASSES)
    outputs = [LABELS[0], OutputSpec(name="score", dtype="FP32", shape=[])]
    assert agreement(fitted, tmp_path, {"x": ROWS[:32]}, outputs=outputs) <= 1e-4


def test_a_search_is_its_best_estimator(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2).fit(ROWS, CLASSES)
    assert as_estimator(search) is search.best_estimator_
    assert agreement(as_estimator(search), tmp_path, {"x": ROWS[:32]}) <= 1e-6


@pytest.mark.parametrize("shape", [[], [2]], ids=["one number", "two"])
def test_an_output_of_another_shape_is_named(shape: list[int | str], tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    three = LogisticRegression().fit(ROWS, np.digitize(ROWS[:, 0], [-0.5, 0.5]))
    outputs = [OutputSpec(name="label", dtype="FP32", shape=shape)]
    with pytest.raises(StepError, match=r"predict_proba gives 3 values a row\n  hint: its shape is \[3\]"):
        agreement(three, tmp_path, {"x": ROWS[:32]}, outputs=outputs)


def test_what_a_converter_gets_wrong_is_not_called_rounding(tmp_path: Path) -> None:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import LinearSVC

    isotonic = CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=2).fit(ROWS, CLASSES)
    with pytest.raises(VerifyError, match=r"in [\d,]+ of 2,000 rows.*\n  hint: so many are more than rounding"):
        agreement(isotonic, tmp_path, {"x": ROWS[:32]})


def xgboost_of(**options: Any) -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=2, **options).fit(ROWS, ROWS[:, :2] if not options else ROWS[:, 0])


def lightgbm_with(**options: Any) -> Any:
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=2, verbose=-1, **options).fit(ROWS, ROWS[:, 0])


def dbscan() -> Any:
    from sklearn.cluster import DBSCAN

    return DBSCAN().fit(ROWS)


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        (partial(xgboost_of, booster="dart"), "XGBRegressor cannot be converted: its booster is dart; the converter"),
        (xgboost_of, r"it has 2 targets; the converter takes one\n  hint: MultiOutputRegressor"),
        (partial(lightgbm_with, linear_tree=True), "its leaves are linear models"),
        (partial(lightgbm_with, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5), "it averages its trees"),
        (dbscan, "DBSCAN gives labels to what it is fitted on, and to no other rows"),
    ],
    ids=["dart", "targets", "linear trees", "averages", "no predict"],
)
def test_what_no_converter_takes_is_said(fitted: Callable[[], Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=message):
        agreement(fitted(), tmp_path, {"x": ROWS[:32]}, outputs=[OutputSpec(name="y", dtype="FP32", shape=[])])


def test_a_zero_that_the_library_takes_as_missing_is_among_the_rows(tmp_path: Path) -> None:
    """No golden sample needs to hold an exact zero for the graph to be refused."""
    from lightgbm import LGBMClassifier

    fitted = LGBMClassifier(n_estimators=5, zero_as_missing=True, verbose=-1).fit(ROWS, CLASSES)
    with pytest.raises(VerifyError, match="differs from the library"):
        agreement(as_estimator(fitted), tmp_path, {"x": ROWS})
