"""A random forest that names three kinds of iris; `python convert.py` writes it as ONNX."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier


def fitted():
    return RandomForestClassifier(n_estimators=20, random_state=1).fit(*load_iris(return_X_y=True))


if __name__ == "__main__":
    from skl2onnx import to_onnx

    model = to_onnx(fitted(), np.zeros((1, 4), np.float32), options={"zipmap": False}, target_opset=21)
    Path("model.onnx").write_bytes(model.SerializeToString())
