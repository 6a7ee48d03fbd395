"""source.kind sklearn: a fitted estimator or Pipeline of scikit-learn, converted to ONNX."""

from __future__ import annotations

from typing import ClassVar, Literal

from modelwright.kinds.estimators import NO_TECHNIQUES, TABULAR, VERIFIED, FittedSource, estimator_steps
from modelwright.kinds.kind import Kind, shipped
from modelwright.kinds.trust import TrustedField
from modelwright.kinds.verify import in_onnxruntime


class SklearnSource(FittedSource):
    formats: ClassVar[str] = ".skops, or a pickle (.pkl, .joblib) with trusted: true"

    kind: Literal["sklearn"]
    trusted: TrustedField = False


KIND = Kind(
    name="sklearn",
    source=SklearnSource,
    summary="a fitted scikit-learn estimator or Pipeline",
    takes="`entry`: a function that returns it; or `path`: a `.skops` file, or a pickle with `trusted: true`",
    verified=VERIFIED,
    steps=estimator_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    needs=(TABULAR,),
    no_techniques=NO_TECHNIQUES,
    backend="onnxruntime",
    scaffold={"": shipped("sklearn")},
)
