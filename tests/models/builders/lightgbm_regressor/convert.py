"""How a diabetes goes on within a year."""

from pathlib import Path

from lightgbm import LGBMRegressor
from sklearn.datasets import load_diabetes


def fitted():
    return LGBMRegressor(n_estimators=30, random_state=1, n_jobs=1, deterministic=True, verbose=-1).fit(
        *load_diabetes(return_X_y=True)
    )


if __name__ == "__main__":
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = convert_lightgbm(fitted(), initial_types=[("features", FloatTensorType([None, 10]))], target_opset=15)
    Path("model.onnx").write_bytes(model.SerializeToString())
