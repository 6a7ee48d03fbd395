"""source.kind ensemble: models of this project, linked by tensors. Its version says which ones it was verified with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from modelwright.kinds.kind import EnsembleStep, Kind, shipped
from modelwright.kinds.onnx import scaffold as onnx_scaffold
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_server
from modelwright.project.spec import SourceSpec

_COMPOSE = StepFunction("ensemble", "modelwright.steps.ensemble:run")


class EnsembleSource(SourceSpec):
    kind: Literal["ensemble"]
    steps: tuple[EnsembleStep, ...] = Field(
        min_length=1, description="The models that run, linked by the names of the ensemble's tensors."
    )

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(step.model_name for step in self.steps))


def _steps(recipe: Recipe, source: EnsembleSource) -> list[Step]:
    config = {"steps": [step.model_dump(mode="json") for step in source.steps]}
    return [recipe.step("ensemble", _COMPOSE, config=config, needs=recipe.composing)]


KIND = Kind(
    name="ensemble",
    source=EnsembleSource,
    summary="models of this project that run one after another",
    takes="`steps` that name models of this project; tensors are linked and checked",
    verified="in the real server",
    steps=_steps,
    version_step="ensemble",
    verification=in_server,
    platform="ensemble",
    pins="steps",
    ensemble_steps=lambda source: source.steps,
    scaffold={"_scale": shipped("ensemble_scale"), "_edges": onnx_scaffold, "": shipped("ensemble")},
)
