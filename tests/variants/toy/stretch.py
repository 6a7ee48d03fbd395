"""A technique of the tests that works on the module: multiplies its weights by what a function of the builder says."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.kinds.step import StepFunction
from modelwright.project.spec import Entry, StepOptions
from modelwright.variants.technique import Technique


class StretchOptions(StepOptions):
    entry: Entry
    teacher: str | None = None

    def entries(self) -> Mapping[str, Entry]:
        return {"entry": self.entry}


TECHNIQUE = Technique(
    name="stretch",
    options=StretchOptions,
    summary="multiplies the weights",
    works_on="module",
    step=lambda stage, options: stage.step(StepFunction("stretch", "tests.variants.toy_steps:stretch"), options),
    teacher=lambda options: options.teacher,
)
