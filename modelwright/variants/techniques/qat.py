"""`qat`: the module is trained on with rounding to INT8 built in, and exported with QuantizeLinear/DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, JsonValue

from modelwright.kinds.export import EXPORT_TOOLS, TORCH
from modelwright.kinds.kind import Needs
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Entry, StepOptions
from modelwright.variants.technique import Stage, Technique

_QAT = StepFunction("qat", "modelwright.steps.qat:run")

TORCHAO = Needs(
    name="torchao",
    modules=("torchao",),
    install="modelwright[variants]",
)


class QatOptions(StepOptions):
    entry: Entry = Field(
        description="Trains on: module:function of this folder. (module, **params) → the same nn.Module, trained."
    )
    params: dict[str, JsonValue] = Field({}, description="Arguments of the entry.")
    keep: tuple[str, ...] = Field((), description="Layers that stay in float: names in the module, with * for any.")
    reduce_range: bool = Field(
        False, description="Weights of 7 bits, for CPUs without VNNI: their sums of 8-bit products can overflow."
    )
    threads: int = Field(1, ge=1, description="Threads to train with. Part of the result.")

    def entries(self) -> Mapping[str, Entry]:
        return {"entry": self.entry}


def _step(stage: Stage, options: QatOptions) -> Step:
    return stage.step(_QAT, options, tools=(*EXPORT_TOOLS, "torchao"), threads=options.threads)


TECHNIQUE = Technique(
    name="qat",
    options=QatOptions,
    summary="trained on with rounding to INT8 built in, exported with QuantizeLinear and DequantizeLinear",
    works_on="module",
    step=_step,
    precision="int8",
    needs=(TORCH, TORCHAO),
)
