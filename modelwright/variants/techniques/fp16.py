"""FP16 in the graph: half the size, and twice the speed or more on a GPU."""

from __future__ import annotations

from modelwright.kinds.step import Step, StepFunction
from modelwright.variants.half import HalfOptions, half_step
from modelwright.variants.technique import Stage, Technique

_FP16 = StepFunction("fp16", "modelwright.steps.fp16:run", revision=3)


class Fp16Options(HalfOptions):
    pass


def _step(stage: Stage, options: Fp16Options) -> Step:
    return half_step(stage, options, _FP16)


TECHNIQUE = Technique(
    name="fp16",
    options=Fp16Options,
    summary="computes in FP16 where that is safe; for GPUs",
    works_on="graph",
    step=_step,
    precision="fp16",
)
