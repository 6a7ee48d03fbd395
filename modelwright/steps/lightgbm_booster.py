"""A LightGBM Booster, which a file gives, with the methods that estimators have."""

from __future__ import annotations

from collections.abc import Iterator
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


def lightgbm_of(estimator: Any) -> Any:
    """The Booster of an estimator of LightGBM; None for any other."""
    if isinstance(estimator, LightGbmBooster):
        return estimator.booster
    is_lightgbm = type(estimator).__module__.partition(".")[0] == "lightgbm"
    return estimator.booster_ if is_lightgbm else None


def with_exact_thresholds(model: ModelProto, booster: Any) -> None:
    """Round the thresholds of trees down, in place: the converter rounds to the nearest float32 number.

    LightGBM asks whether x <= t, in float64. For an x of float32 that is to ask whether x <= the largest float32 number
    that is not above t. Where one number stands for several thresholds of a feature, some above it and some below, it
    stays.
    """
    import numpy as np

    above: dict[tuple[int, float], set[bool]] = {}
    for feature, threshold in _thresholds(booster):
        nearest = np.float32(threshold)
        above.setdefault((feature, float(nearest)), set()).add(bool(float(nearest) > threshold))
    for node in model.graph.node:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if not node.op_type.startswith("TreeEnsemble") or "nodes_values" not in attributes:
            continue
        values = attributes["nodes_values"].floats
        for index, (feature, value) in enumerate(zip(attributes["nodes_featureids"].ints, values, strict=True)):
            if above.get((feature, value)) == {True}:
                values[index] = float(np.nextafter(np.float32(value), np.float32(-np.inf)))


def _thresholds(booster: Any) -> Iterator[tuple[int, float]]:
    """(feature, threshold) of every split that compares numbers."""
    waiting = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while waiting:
        node = waiting.pop()
        if "split_feature" in node:
            if node["decision_type"] == "<=":
                yield node["split_feature"], float(node["threshold"])
            waiting += [node["left_child"], node["right_child"]]
