"""`new --from` a file with a fitted estimator: what its header says, and that nothing of it is loaded."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Sandbox

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each format, and damaged ones."""
    import joblib
    from lightgbm import LGBMClassifier
    from sklearn.datasets import load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from skops.io import dump
    from xgboost import XGBClassifier, XGBRegressor

    folder = tmp_path_factory.mktemp("files")
    wine = load_wine(as_frame=True)
    rows, classes = wine.data.to_numpy(), wine.target.to_numpy()
    XGBClassifier(n_estimators=2).fit(wine.data, classes).save_model(folder / "named.ubj")
    XGBRegressor(n_estimators=2).fit(rows, classes).save_model(folder / "numbers.json")
    LGBMClassifier(n_estimators=2, verbose=-1).fit(wine.data, classes).booster_.save_model(folder / "boosted.txt")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, wine.target_names[classes])
    dump(pipeline, folder / "wine.skops")
    joblib.dump(pipeline, folder / "wine.joblib", compress=3)
    (folder / "cut-many.txt").write_text("tree\nversion=v4\nnum_class=1\nmax_feature_idx=99999999999\n\n")
    for name in ("numbers.json", "named.ubj"):
        (folder / f"cut-{name}").write_bytes((folder / name).read_bytes()[:-200])
    return folder


def spec(sandbox: Sandbox, name: str = "m") -> Any:
    return yaml.safe_load((sandbox.root / f"builders/{name}/model.yaml").read_text())


CLASSIFIER = [("class", "INT64", []), ("probabilities", "FP32", [3])]
NAMED = [("class", "BYTES", []), ("probabilities", "FP32", [3])]
NUMBER: list[tuple[str, str, list[int]]] = [("prediction", "FP32", [])]
CASES = {
    "named.ubj": ("a model of XGBoost: 13 features, 3 classes, objective multi:softprob", "xgboost", CLASSIFIER),
    "numbers.json": ("a model of XGBoost: 13 features, 1 number, objective reg:squarederror", "xgboost", NUMBER),
    "boosted.txt": ("a model of LightGBM: 13 features, 3 classes, objective multiclass", "lightgbm", CLASSIFIER),
    "wine.skops": ("a skops file: Pipeline that ends in LogisticRegression, 13 features, 3 classes", "sklearn", NAMED),
}


@pytest.mark.parametrize("file", CASES)
def test_inputs_and_outputs_are_those_of_the_header(sandbox: Sandbox, files: Path, file: str) -> None:
    saw, kind, outputs = CASES[file]
    result = sandbox.cli("new", "m", "--from", str(files / file))
    assert result.exit_code == 0, result.output
    assert f"Saw {saw}" in result.output
    written = spec(sandbox)
    assert written["source"]["kind"] == kind
    assert written["inputs"] == [{"name": "x", "dtype": "FP32", "shape": [13]}]
    assert [tuple(output.values()) for output in written["outputs"]] == outputs


def test_each_builds_at_once(sandbox: Sandbox, files: Path) -> None:
    for number, file in enumerate(CASES):
        assert sandbox.cli("new", f"m{number}", "--from", str(files / file)).exit_code == 0
    outcomes = sandbox.build()
    assert {outcome.status for outcome in outcomes.values()} == {"new"}, outcomes
    text = (sandbox.root / "builders/m0/model.yaml").read_text()
    assert "# in this order: alcohol, malic_acid, ash" in text


class Touches:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_told_by_its_opcodes_and_never_loaded(sandbox: Sandbox, files: Path, tmp_path: Path) -> None:
    from sklearn.naive_bayes import GaussianNB

    estimator = GaussianNB().fit([[0.0, 1.0], [2.0, 3.0]], [0, 1])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps([Touches(tmp_path / "touched"), estimator]))
    result = sandbox.cli("new", "m", "--from", str(tmp_path / "model.pkl"))
    assert result.exit_code == 0, result.output
    assert "that names numpy, pathlib, sklearn (scikit-learn 1." in result.output
    assert "it was not loaded" in result.output
    assert "it seems to take 2 features" in result.output
    assert "Left to you: source.trusted: true, if you trust whoever made it" in result.output
    assert not (tmp_path / "touched").exists()
    assert "trusted" not in spec(sandbox)["source"]
    assert "which can run any code" in sandbox.error("build", "m")
    assert not (tmp_path / "touched").exists()


def test_a_compressed_pickle_is_read_as_far_as_its_arrays(sandbox: Sandbox, files: Path) -> None:
    result = sandbox.cli("new", "m", "--from", str(files / "wine.joblib"))
    assert "a pickle of 1.5 kB that names joblib, numpy, sklearn" in result.output
    assert spec(sandbox)["inputs"][0]["shape"] == [13]


@pytest.mark.parametrize("name", ["cut-numbers.json", "cut-named.ubj", "cut-many.txt"])
def test_a_damaged_file_is_an_error(sandbox: Sandbox, files: Path, name: str) -> None:
    message = sandbox.error("new", "m", "--from", str(files / name))
    assert re.search(r"is a model of (XGBoost|LightGBM), but damaged: its? .*\n  hint: copy or write it again", message)


def test_a_pickle_of_something_else_is_no_estimator(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"weights": [1.0]}))
    message = sandbox.error("new", "m", "--from", str(tmp_path / "model.pkl"))
    assert "is a Python pickle, of which no builder is made" in message
