"""A LightGBM Booster, which a file gives, with the methods that estimators have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

_CLASSIFIES = ("binary", "multiclass", "multiclassova", "softmax", "ova")
_OPSET = 15  # the latest that onnxmltools has converters for


class LightGbmBooster:
    """Classes are 0, 1, …: a file of LightGBM has no names for them."""

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        self.n_features_in_ = booster.num_feature()
        described = booster.dump_model(num_iteration=1)
        self.objective = str(described.get("objective", "")).split(" ")[0]
        self.is_classifier = self.objective in _CLASSIFIES

    def predict(self, table: Any) -> np.ndarray[Any, Any]:
        """The class, or the number."""
        import numpy as np

        if not self.is_classifier:
            return np.asarray(self.booster.predict(table))
        best: np.ndarray[Any, Any] = self.predict_proba(table).argmax(axis=1)
        return best

    def predict_proba(self, table: Any) -> np.ndarray[Any, Any]:
        import numpy as np

        raw = np.asarray(self.booster.predict(table))
        return raw if raw.ndim == 2 else np.stack([1 - raw, raw], axis=1)

    def converted(self, initial: list[tuple[str, Any]]) -> ModelProto:
        """As `convert_sklearn`: `initial` has skl2onnx's types, for which onnxmltools has classes of its own."""
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common import data_types

        types = [(name, getattr(data_types, type(given).__name__)(given.shape)) for name, given in initial]
        model: ModelProto = convert_lightgbm(self.booster, initial_types=types, zipmap=False, target_opset=_OPSET)
        return model
