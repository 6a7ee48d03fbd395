"""How a diabetes goes on within a year."""

from pathlib import Path

from sklearn.datasets import load_diabetes
from xgboost import XGBRegressor


def fitted():
    return XGBRegressor(n_estimators=30, max_depth=4, random_state=1, n_jobs=1).fit(*load_diabetes(return_X_y=True))


if __name__ == "__main__":
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = convert_xgboost(fitted(), initial_types=[("features", FloatTensorType([None, 10]))], target_opset=15)
    Path("model.onnx").write_bytes(model.SerializeToString())
