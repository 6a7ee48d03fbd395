"""A fare from a table with columns of numbers and of words: an input for each column."""

from pathlib import Path

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS, WORDS = ["age", "distance"], ["class", "harbour"]


def table(count, seed):
    """{column: (count, 1)}."""
    random = np.random.default_rng(seed)
    return {
        "age": random.uniform(1, 80, (count, 1)).astype(np.float32),
        "distance": random.uniform(10, 900, (count, 1)).astype(np.float32),
        "class": random.choice(["first", "second", "third"], (count, 1)).astype(object),
        "harbour": random.choice(["north", "south"], (count, 1)).astype(object),
    }


def rows(columns):
    return np.concatenate([columns[name].astype(object) for name in [*NUMBERS, *WORDS]], axis=1)


def fitted():
    columns = table(300, 1)
    fare = columns["distance"] * np.where(columns["class"] == "first", 0.3, 0.1) + columns["age"] * 0.2
    encoder = ColumnTransformer(
        [("numbers", StandardScaler(), [0, 1]), ("words", OneHotEncoder(handle_unknown="ignore"), [2, 3])]
    )
    model = make_pipeline(encoder, GradientBoostingRegressor(n_estimators=30, random_state=1))
    return model.fit(rows(columns), fare.ravel())


if __name__ == "__main__":
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    inputs = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    inputs += [(name, StringTensorType([None, 1])) for name in WORDS]
    model = to_onnx(fitted(), initial_types=inputs, target_opset=21)
    Path("model.onnx").write_bytes(model.SerializeToString())
