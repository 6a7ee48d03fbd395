"""A technique of the tests that needs a module which nobody has."""

from __future__ import annotations

from modelwright.kinds.kind import Needs
from modelwright.kinds.step import StepFunction
from modelwright.project.spec import StepOptions
from modelwright.variants.technique import Technique


class FarOptions(StepOptions):
    pass


TECHNIQUE = Technique(
    name="far",
    options=FarOptions,
    summary="cannot run",
    works_on="graph",
    step=lambda stage, options: stage.step(StepFunction("far", "tests.variants.toy_steps:tidy"), options),
    lossy=False,
    needs=(Needs(name="far things", modules=("no_such_module",), install="modelwright[far]"),),
)
