"""source.kind lightgbm: a fitted LightGBM model, or a Pipeline with one, converted to ONNX."""

from __future__ import annotations

from typing import ClassVar, Literal

from modelwright.kinds.estimators import NO_TECHNIQUES, TABULAR, VERIFIED, FittedSource, estimator_steps
from modelwright.kinds.kind import Kind, Needs, shipped
from modelwright.kinds.verify import in_onnxruntime

_LIGHTGBM = Needs(name="LightGBM models", modules=("lightgbm",), install="modelwright[tabular]")


class LightgbmSource(FittedSource):
    library: ClassVar[str] = "lightgbm"
    formats: ClassVar[str] = ".txt, as Booster.save_model() writes it"

    kind: Literal["lightgbm"]


KIND = Kind(
    name="lightgbm",
    source=LightgbmSource,
    summary="a fitted LightGBM model",
    takes="`entry`: a function that returns it, or a Pipeline with it; or `path`: a `.txt` file",
    verified=VERIFIED,
    steps=estimator_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    needs=(TABULAR, _LIGHTGBM),
    no_techniques=NO_TECHNIQUES,
    backend="onnxruntime",
    scaffold={"": shipped("lightgbm")},
)
