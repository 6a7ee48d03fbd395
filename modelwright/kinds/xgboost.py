"""source.kind xgboost: a fitted XGBoost model, or a Pipeline with one, converted to ONNX."""

from __future__ import annotations

from typing import ClassVar, Literal

from modelwright.kinds.estimators import NO_TECHNIQUES, TABULAR, VERIFIED, FittedSource, estimator_steps
from modelwright.kinds.kind import Kind, Needs, shipped
from modelwright.kinds.verify import in_onnxruntime

# The module comes from either of two distributions: xgboost, and xgboost-cpu without the libraries that GPUs need.
_XGBOOST = Needs(name="XGBoost models", modules=("xgboost",), install="modelwright[xgboost]")


class XgboostSource(FittedSource):
    library: ClassVar[str] = "xgboost"
    formats: ClassVar[str] = ".json or .ubj, as save_model() writes it"

    kind: Literal["xgboost"]


KIND = Kind(
    name="xgboost",
    source=XgboostSource,
    summary="a fitted XGBoost model",
    takes="`entry`: a function that returns it, or a Pipeline with it; or `path`: a `.json` or `.ubj` file",
    verified=VERIFIED,
    steps=estimator_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    needs=(TABULAR, _XGBOOST),
    no_techniques=NO_TECHNIQUES,
    backend="onnxruntime",
    scaffold={"": shipped("xgboost")},
)
