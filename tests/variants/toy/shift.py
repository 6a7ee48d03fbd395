"""A technique of the tests: moves every answer, by a constant that the options give."""

from __future__ import annotations

from typing import Literal

from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import StepOptions
from modelwright.variants.technique import Skipped, Stage, Technique


class ShiftOptions(StepOptions):
    by: float = 0.0
    here: Literal["yes", "no", "checked"] = "yes"


def _step(stage: Stage, options: ShiftOptions) -> Step | Skipped:
    step = stage.step(StepFunction("shift", "tests.variants.toy_steps:shift"), options, gated=True)
    if options.here == "yes":
        return step
    return Skipped("there is no machine that shifts", checks=(step,) if options.here == "checked" else ())


TECHNIQUE = Technique(
    name="shift", options=ShiftOptions, summary="moves the answers", works_on="graph", step=_step, precision="int8"
)
