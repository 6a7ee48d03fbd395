"""Technique `quantise`: an ONNX graph that computes in 8-bit integers, by onnxruntime's quantiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Entry, StepOptions
from modelwright.variants.technique import Stage, Technique

Method: TypeAlias = Literal["min-max", "entropy", "percentile"]

_QUANTISE = StepFunction("quantise", "modelwright.steps.quantise:run", revision=3)
_STATIC_ONLY = ("method", "percentile", "activations")
_CALIBRATION = ("calibration", "samples")


class QuantiseOptions(StepOptions):
    """How a graph becomes INT8."""

    mode: Literal["dynamic", "static"] = Field(
        "static",
        description="dynamic: weights are INT8, the range of activations is taken from each request (text models)."
        " static: the ranges are measured once, on calibration data (convolutions; rows do not depend on each other).",
    )
    calibration: Entry | None = Field(
        None, description="() → {name: (N, *shape)} to measure ranges on; without it, the builder's samples."
    )
    samples: int = Field(256, ge=1, description="At most so many of the calibration data are used, the first ones.")
    method: Method = Field("min-max", description="How a range follows from the values seen; static only.")
    percentile: float = Field(99.99, gt=50, le=100, description="The share of values inside, for method: percentile.")
    per_channel: bool = Field(True, description="A scale for each output channel of a weight, not one for all of it.")
    activations: Literal["asymmetric", "symmetric"] = Field(
        "asymmetric",
        description="asymmetric: UINT8 with a zero point, the fastest in onnxruntime on x86. symmetric: INT8 around 0,"
        " which TensorRT takes; static only.",
    )
    reduce_range: bool = Field(
        True,
        description="Weights of 7 bits: with 8, the 16-bit sums of CPUs without VNNI saturate, and their answers differ"
        " from those of other CPUs.",
    )
    smooth_quant: bool | float = Field(
        False,
        description="Move the range of activations into the weights (SmoothQuant): alpha in 0..1, or true to choose the"
        " alpha that loses least, or none.",
    )
    only: tuple[str, ...] = Field((), description="Operator types or node names: nothing else is quantised.")
    exclude: tuple[str, ...] = Field((), description="Operator types or node names that stay in float.")
    budget: int = Field(
        16, ge=1, le=30, description="How many candidates may be evaluated to pass the gates; 1: no search."
    )

    @model_validator(mode="after")
    def _fits_the_mode(self) -> QuantiseOptions:
        fields = type(self).model_fields
        given = [name for name, field in fields.items() if getattr(self, name) != field.default]
        if self.mode == "dynamic":
            if unused := [name for name in _STATIC_ONLY if name in given]:
                raise ValueError(f"{unused[0]}: is for mode: static")
            if not self.calibrates and (unused := [name for name in _CALIBRATION if name in given]):
                raise ValueError(f"{unused[0]}: mode: dynamic needs no calibration data, unless smooth_quant is set")
        if not 0 <= self.smooth_quant <= 1:
            raise ValueError(f"smooth_quant: alpha is between 0 and 1, got {self.smooth_quant:g}")
        if "percentile" in given and self.method != "percentile":
            raise ValueError("percentile: is for method: percentile")
        return self

    @property
    def calibrates(self) -> bool:
        """Whether calibration data are run."""
        return self.mode == "static" or self.smooth_quant is not False

    def entries(self) -> Mapping[str, Entry]:
        return {"calibration": self.calibration} if self.calibration else {}


def _step(stage: Stage, options: QuantiseOptions) -> Step:
    return stage.step(_QUANTISE, options, tools=("onnx", "onnxruntime"), gated=True)


TECHNIQUE = Technique(
    name="quantise",
    options=QuantiseOptions,
    summary="INT8: dynamic, static with calibration, SmoothQuant; layers that hurt stay in float",
    works_on="graph",
    step=_step,
    precision="int8",
)
