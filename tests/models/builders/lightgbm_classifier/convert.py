"""Which of three kinds a wine is."""

from pathlib import Path

from lightgbm import LGBMClassifier
from sklearn.datasets import load_wine


def fitted():
    return LGBMClassifier(n_estimators=30, random_state=1, n_jobs=1, deterministic=True, verbose=-1).fit(
        *load_wine(return_X_y=True)
    )


if __name__ == "__main__":
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = convert_lightgbm(
        fitted(), initial_types=[("features", FloatTensorType([None, 13]))], target_opset=15, zipmap=False
    )
    # The converter declares one label, whatever the number of rows.
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows"
    Path("model.onnx").write_bytes(model.SerializeToString())
