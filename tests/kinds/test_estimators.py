"""Source kinds sklearn, xgboost and lightgbm: built, held against the library, and served by the real server."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.server.environment import ensure
from modelwright.server.local import RunningServer, running
from modelwright.triton.client import connect
from tests.conftest import Sandbox

pytestmark = pytest.mark.torch

DATA_PY = """
import numpy as np
from sklearn.datasets import load_wine

WINE = load_wine()


def samples():
    return {"x": WINE.data[::8].astype(np.float32)}


def columns():
    rows = [(20, b"red", 3), (31.5, b"green", 1), (58.25, b"red", 2), (44, b"blue", 1), (np.nan, b"blue", 3)]
    age, colour, rooms = zip(*rows)
    return {
        "age": np.array(age, np.float32)[:, None],
        "colour": np.array(colour, object)[:, None],
        "rooms": np.array(rooms, np.int64)[:, None],
    }
"""

TRAIN_PY = """
import numpy as np
import pandas as pd
from data import WINE, columns
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NAMES = WINE.target_names[WINE.target]


def forest():
    return make_pipeline(StandardScaler(), RandomForestClassifier(20)).fit(WINE.data, NAMES)


def boosted():
    from lightgbm import LGBMClassifier

    return make_pipeline(StandardScaler(), LGBMClassifier(n_estimators=10, verbose=-1)).fit(WINE.data, NAMES)


def gradient():
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=10).fit(WINE.data, WINE.data[:, 0] * 100)


def mixed():
    table = {name: column[:, 0] for name, column in columns().items()}
    frame = pd.DataFrame(table | {"colour": [name.decode() for name in table["colour"]]})
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    parts = [("numbers", numbers, ["age", "rooms"]), ("words", OneHotEncoder(handle_unknown="ignore"), ["colour"])]
    return make_pipeline(ColumnTransformer(parts), LogisticRegression()).fit(frame, ["yes", "no", "yes", "no", "no"])


class Squarer(BaseEstimator, TransformerMixin):
    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return X**2


def custom():
    return make_pipeline(StandardScaler(), Squarer(), LogisticRegression()).fit(WINE.data, NAMES)


def unfitted():
    return LogisticRegression()


def other_features():
    return LinearRegression().fit(WINE.data[:, :4], WINE.target)
"""

YAML = """
source: {{kind: {kind}, entry: train:{entry}}}
inputs: [{{name: x, dtype: FP32, shape: [13]}}]
outputs: {outputs}
samples: data:samples
serving: {{max_batch_size: 64}}
"""
CLASSES = "[{name: grower, dtype: BYTES, shape: []}, {name: probabilities, dtype: FP32, shape: [3]}]"
MIXED_YAML = """
source: {kind: sklearn, entry: train:mixed}
inputs:
  - {name: rooms, dtype: INT64, shape: [1]}
  - {name: age, dtype: FP32, shape: [1]}
  - {name: colour, dtype: BYTES, shape: [1]}
outputs: [{name: share, dtype: FP32, shape: [2]}, {name: answer, dtype: BYTES, shape: []}]
samples: data:columns
serving: {max_batch_size: 64}
"""


def estimator(sandbox: Sandbox, name: str, yaml: str, train: str = TRAIN_PY) -> Path:
    return sandbox.write(name, model_yaml=yaml, data_py=DATA_PY, train_py=train)


def yaml_of(entry: str, kind: str = "sklearn", outputs: str = CLASSES) -> str:
    return YAML.format(kind=kind, entry=entry, outputs=outputs)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """One project with a builder of each kind, and its files in place of entries."""
    from modelwright.triton.releases import TESTED_WITH

    sandbox = Sandbox(tmp_path_factory.mktemp("estimators"))
    (sandbox.root / "modelwright.toml").write_text(f'triton = "{TESTED_WITH}"\n')
    estimator(sandbox, "forest", yaml_of("forest"))
    estimator(sandbox, "boosted", yaml_of("boosted", "lightgbm"))
    estimator(sandbox, "gradient", yaml_of("gradient", "xgboost", "[{name: alcohol, dtype: FP32, shape: [1]}]"))
    estimator(sandbox, "mixed", MIXED_YAML)
    for name, kind in (("lightgbm_file", "lightgbm"), ("xgboost_file", "xgboost"), ("skops_file", "sklearn")):
        write_file(sandbox, name, kind)
    outcomes = sandbox.build()
    assert {outcome.status for outcome in outcomes.values()} == {"new"}, outcomes
    return sandbox


def write_file(sandbox: Sandbox, name: str, kind: str) -> None:
    """A builder whose estimator is a file."""
    from lightgbm import LGBMClassifier
    from sklearn.datasets import load_wine
    from sklearn.naive_bayes import GaussianNB
    from skops.io import dump
    from xgboost import XGBClassifier

    files = {"lightgbm": "model.txt", "xgboost": "model.ubj", "sklearn": "model.skops"}
    outputs = CLASSES.replace("BYTES", "INT64")
    yaml = yaml_of("", kind, outputs).replace("entry: train:", f"path: {files[kind]}")
    folder = sandbox.write(name, model_yaml=yaml, data_py=DATA_PY)
    wine = load_wine()
    path = folder / files[kind]
    if kind == "lightgbm":
        model = LGBMClassifier(n_estimators=5, verbose=-1).fit(wine.data, wine.target)
        model.booster_.save_model(path)
    elif kind == "xgboost":
        XGBClassifier(n_estimators=5).fit(wine.data, wine.target).save_model(path)
    else:
        dump(GaussianNB().fit(wine.data, wine.target), path)


def compared(sandbox: Sandbox, model: str) -> dict[str, Any]:
    """How the graph of the newest version agrees with the library, by its manifest."""
    latest = sandbox.repository.latest(model)
    assert latest is not None
    found: Any = latest[1].made.details["compared"]
    return dict(found)


@pytest.mark.parametrize("model", ["forest", "boosted", "mixed", "lightgbm_file", "xgboost_file", "skops_file"])
def test_ten_thousand_rows_agree_with_the_library(built: Sandbox, model: str) -> None:
    agreement = compared(built, model)
    assert agreement["rows"] == 10_000
    assert agreement["ties"] <= 100
    assert max(agreement["largest_difference"].values()) <= 1e-5


def test_scaling_is_in_float64_where_a_threshold_lies_on_the_data(built: Sandbox) -> None:
    assert compared(built, "forest")["computes_in"] == "float32, scaled in float64"
    assert "computes_in" not in compared(built, "boosted")


@pytest.fixture(scope="module")
def server(built: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Serves a model of each kind."""
    environment = ensure(built.project.server, built.project.target, lambda text: None)
    log = tmp_path_factory.mktemp("server") / "log"
    models = ["lightgbm_file", "mixed", "xgboost_file"]
    with running(environment, built.repository.root, log=log, models=models, stop_grace_s=0) as server:
        assert server.failures() == {}
        yield server


@pytest.mark.server
def test_the_server_answers_as_the_library_does(built: Sandbox, server: RunningServer) -> None:
    from lightgbm import Booster
    from sklearn.datasets import load_wine
    from xgboost import XGBClassifier

    rows = load_wine().data[::4].astype(np.float32)
    boosted = XGBClassifier()
    boosted.load_model(built.root / "builders/xgboost_file/model.ubj")
    wide = rows.astype(np.float64)
    expected = {
        "lightgbm_file": Booster(model_file=built.root / "builders/lightgbm_file/model.txt").predict(wide),
        "xgboost_file": boosted.predict_proba(wide),
    }
    with connect(f"grpc://{server.grpc}") as client:
        for model, library in expected.items():
            answers = client.infer(model, {"x": rows})
            np.testing.assert_allclose(answers["probabilities"], library, atol=1e-5)
            assert answers["grower"].shape == (len(rows), 1)
            assert answers["grower"].ravel().tolist() == np.argmax(np.asarray(library), axis=1).tolist()


@pytest.mark.server
def test_the_server_takes_numbers_and_strings_each_in_a_column(server: RunningServer) -> None:
    columns = {
        "age": np.array([[20], [np.nan]], np.float32),
        "colour": np.array([[b"red"], [b"never seen"]], object),
        "rooms": np.array([[3], [1]], np.int64),
    }
    with connect(f"grpc://{server.grpc}") as client:
        answer = client.infer("mixed", columns)
    assert answer["share"].sum(axis=1) == pytest.approx(1, abs=1e-6)
    picked = np.array([b"no", b"yes"], object)[answer["share"].argmax(axis=1)]
    assert answer["answer"].ravel().tolist() == picked.tolist()


def test_the_same_estimator_gives_the_same_bytes(built: Sandbox, tmp_path: Path) -> None:
    """Also in a process with another hash seed: `built` ran in this one."""
    import os
    import subprocess
    import sys

    for name in ("builders", "modelwright.toml"):
        source = built.root / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", str(tmp_path), "build", "mixed"]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": "12345"})
    files = [root / "model_repository" / "mixed" / "1" / "model.onnx" for root in (built.root, tmp_path)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("custom", r"no converter takes train\.Squarer, which is 'squarer'\n  hint: choose an .*kind python"),
        ("unfitted", r"sklearn\.linear_model\._logistic\.LogisticRegression is not fitted\n  hint: call \.fit"),
        ("other_features", r"was fitted on 4 features; model\.yaml declares 13: x \[13\]"),
    ],
    ids=["no converter", "not fitted", "features"],
)
def test_an_estimator_that_does_not_do_is_named(sandbox: Sandbox, entry: str, message: str) -> None:
    estimator(sandbox, "wrong", yaml_of(entry))
    assert re.search(message, sandbox.error())


def test_columns_that_were_not_fitted_are_named(sandbox: Sandbox) -> None:
    estimator(sandbox, "wrong", MIXED_YAML.replace("name: rooms", "name: room"))
    data = DATA_PY.replace('"rooms": np', '"room": np')
    sandbox.write(
        "wrong",
        data_py=data,
        train_py=TRAIN_PY.replace("columns().items()", "fitted().items()").replace(
            "def mixed",
            "def fitted():\n    return {n.replace('room', 'rooms'): c for n, c in columns().items()}\n\n\ndef mixed",
        ),
    )
    message = sandbox.error()
    assert "was fitted on the columns age, colour, rooms; model.yaml declares room, age, colour" in message
    assert "did you mean 'rooms'" in message


def test_a_pickle_is_not_loaded_unless_it_is_trusted(sandbox: Sandbox) -> None:
    import joblib
    from sklearn.datasets import load_wine
    from sklearn.naive_bayes import GaussianNB

    yaml = yaml_of("", outputs=CLASSES.replace("BYTES", "INT64")).replace("entry: train:", "path: model.joblib")
    folder = sandbox.write("pickled", model_yaml=yaml, data_py=DATA_PY)
    wine = load_wine()
    joblib.dump(GaussianNB().fit(wine.data, wine.target), folder / "model.joblib", compress=3)
    assert re.search(r"'model\.joblib': is a pickle.* which can run any code", sandbox.error())
    sandbox.write("pickled", model_yaml=yaml.replace("joblib}", "joblib, trusted: true}"))
    assert sandbox.build()["pickled"].status == "new"


def test_an_estimator_of_another_scikit_learn_is_refused(sandbox: Sandbox) -> None:
    import pickle

    from sklearn.datasets import load_wine
    from sklearn.naive_bayes import GaussianNB

    yaml = yaml_of("", outputs=CLASSES.replace("BYTES", "INT64"))
    yaml = yaml.replace("entry: train:", "path: model.pkl, trusted: true")
    folder = sandbox.write("older", model_yaml=yaml, data_py=DATA_PY)
    fitted = GaussianNB().fit(load_wine().data, load_wine().target)
    state = fitted.__getstate__() | {"_sklearn_version": "1.2.2"}
    (folder / "model.pkl").write_bytes(pickle.dumps(_Restored(GaussianNB, state)))
    message = sandbox.error()
    assert "GaussianNB was saved by scikit-learn 1.2.2, here is" in message
    assert "pip install scikit-learn==1.2.2" in message


class _Restored:
    """Pickles as an object of a class with a state."""

    def __init__(self, kind: type, state: dict[str, Any]) -> None:
        self.kind, self.state = kind, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.kind, (), self.state


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("xgboost", b'{"learner": {"attributes": {}', "a model of XGBoost cannot be read"),
        ("lightgbm", b"tree\nversion=v4\nnum_class=1\n", "a model of LightGBM cannot be read"),
        ("lightgbm", b'{"learner": {}}', "is a model of XGBoost, source.kind lightgbm takes a .txt file"),
        ("sklearn", b"PK\x03\x04nothing", "not a file that source.kind sklearn takes"),
    ],
    ids=["xgboost", "lightgbm", "of another library", "zip"],
)
def test_a_damaged_file_is_an_error(sandbox: Sandbox, kind: str, content: bytes, message: str) -> None:
    yaml = yaml_of("", kind).replace("entry: train:", "path: model.bin")
    folder = sandbox.write("damaged", model_yaml=yaml, data_py=DATA_PY)
    (folder / "model.bin").write_bytes(content)
    assert message in sandbox.error()


def test_no_variant_is_made_of_an_estimator(sandbox: Sandbox) -> None:
    variant = "variants: [{name: small, steps: [{quantise: {mode: dynamic}}], gates: {tolerance: {atol: 0.1}}}]\n"
    estimator(sandbox, "forest", yaml_of("forest") + variant)
    message = sandbox.error(may_publish=["forest"])
    assert "source.kind sklearn: a fitted estimator has no layers that a technique could change" in message
