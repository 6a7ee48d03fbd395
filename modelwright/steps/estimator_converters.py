"""Converters for models of XGBoost and LightGBM: skl2onnx is told of those that onnxmltools has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def register_converters() -> None:
    """Let skl2onnx convert the models of XGBoost and LightGBM, where they are installed, inside pipelines too."""
    from importlib.util import find_spec

    for library, register in (("lightgbm", _register_lightgbm), ("xgboost", _register_xgboost)):
        if find_spec(library):
            register()


def _register_lightgbm() -> None:
    import lightgbm
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

    _register_each(lightgbm, "LGBM", ("Classifier", "Regressor", "Ranker"), convert_lightgbm)


def _register_xgboost() -> None:
    import xgboost
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

    names = ("Classifier", "Regressor", "Ranker", "RFClassifier", "RFRegressor")
    _register_each(xgboost, "XGB", names, convert_xgboost)


def _register_each(library: Any, prefix: str, names: Sequence[str], convert: Callable[..., Any]) -> None:
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator

    for name in names:
        classifies = name.endswith("Classifier")
        shapes = (
            "calculate_linear_classifier_output_shapes" if classifies else "calculate_linear_regressor_output_shapes"
        )
        update_registered_converter(
            getattr(library, prefix + name),
            f"Modelwright{prefix}{name}",
            getattr(shape_calculator, shapes),
            convert,
            options={"zipmap": [True, False, "columns"], "nocl": [True, False]} if classifies else {"split": None},
        )
