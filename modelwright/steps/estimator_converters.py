"""Converters for models of XGBoost and LightGBM: skl2onnx is told of those that onnxmltools has."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from modelwright.steps.lightgbm_booster import lightgbm_of


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


def unsupported(estimator: Any) -> tuple[str, str]:
    """(what onnxmltools does not convert of a boosted model, what to do); ("", "") where it does all of it.

    It says nothing of most of these itself: the graph would answer otherwise.
    """
    library = type(estimator).__module__.partition(".")[0]
    if library == "xgboost":
        return _unsupported_of_xgboost(json.loads(estimator.get_booster().save_config())["learner"])
    booster = lightgbm_of(estimator)
    if booster is None:
        return "", ""
    if booster.params.get("linear_tree"):
        return "its leaves are linear models (linear_tree), which no converter takes", "fit it without linear_tree"
    head = booster.model_to_string(num_iteration=1).partition("Tree=")[0]
    if "\naverage_output\n" in head:
        return (
            "it averages its trees (boosting rf), which its converter does wrong",
            "RandomForest of scikit-learn; or gbdt",
        )
    return "", ""


def _unsupported_of_xgboost(learner: dict[str, Any]) -> tuple[str, str]:
    booster = learner["gradient_booster"]["name"]
    if booster != "gbtree":
        return f"its booster is {booster}; the converter takes gbtree", "fit it with booster='gbtree'"
    targets = learner["learner_model_param"].get("num_target", "1")
    if int(targets) > 1:
        return (
            f"it has {targets} targets; the converter takes one",
            "MultiOutputRegressor(XGBRegressor(…)), or a model each",
        )
    return "", ""
