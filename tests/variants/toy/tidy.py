"""A technique of the tests that changes no answer: it writes the graph again."""

from __future__ import annotations

from modelwright.kinds.step import StepFunction
from modelwright.project.spec import StepOptions
from modelwright.variants.technique import Technique


class TidyOptions(StepOptions):
    pass


TECHNIQUE = Technique(
    name="tidy",
    options=TidyOptions,
    summary="writes the graph again",
    works_on="graph",
    step=lambda stage, options: stage.step(StepFunction("tidy", "tests.variants.toy_steps:tidy"), options),
    lossy=False,
)
