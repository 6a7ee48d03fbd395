"""source.kind alias: a name that stays, for a model that may change: `digits_live` serves digits today, digits_int8
tomorrow.

Triton has no aliases, so it is an ensemble of one step. Its tensors, its samples and its max_batch_size are those of
the served model, and it is verified against that model's answers in the real server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr

from modelwright.errors import SpecError
from modelwright.kinds.kind import EnsembleStep, Kind, Verification, shipped
from modelwright.kinds.onnx import scaffold as onnx_scaffold
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Builder, ModelSpec, Name, SourceSpec
from modelwright.suggest import did_you_mean

_COMPOSE = StepFunction("ensemble", "modelwright.steps.ensemble:run")
_VERIFY = StepFunction("verify_alias", "modelwright.steps.alias:verify")
_BATCH = "max_batch_size"


class AliasSource(SourceSpec):
    kind: Literal["alias"]
    of: Name = Field(description="The model that is served, or one of whose variants is.")
    serves: Name = Field(description="The model that answers now. `modelwright pick --write` sets it.")
    needs_samples: ClassVar[bool] = False
    needs_tensors: ClassVar[bool] = False
    _steps: tuple[EnsembleStep, ...] = PrivateAttr(())

    @property
    def steps(self) -> tuple[EnsembleStep, ...]:
        """The one step, once the served model is known."""
        return self._steps

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        return (self.serves,)

    def alias_of(self) -> str:
        return self.of

    def samples_of(self) -> str:
        return self.serves

    def check(self, spec: ModelSpec) -> None:
        for field in ("inputs", "outputs", "samples", "reference", "evaluate", "variants"):
            if getattr(spec, field):
                raise ValueError(f"{field}: an alias has none of its own: it is the model that it serves")
        if _BATCH in spec.serving:
            raise ValueError(f"serving.{_BATCH}: an alias has that of the model that it serves")

    def completed(self, builder: Builder, builders: Mapping[str, Builder], faulty: Collection[str]) -> ModelSpec:
        """The spec with what the served model has. Raises SpecError for a model that it cannot serve."""
        spec, where = builder.spec, f"{builder.file}: source"
        family = {name for name, other in builders.items() if name == self.of or _is_variant(other, self.of)}
        for name in (self.of, self.serves):
            if name in faulty:
                raise SpecError(
                    f"{where}: {name} is faulty itself", "correct its model.yaml, then this one is read, too"
                )
        if self.of not in builders:
            known = [name for name, other in builders.items() if not other.spec.source.alias_of()]
            raise SpecError(f"{where}.of: no builder makes a model named '{self.of}'", did_you_mean(self.of, known))
        if builders[self.of].spec.source.alias_of():
            raise SpecError(f"{where}.of: {self.of} is an alias, too", "name the model that it serves")
        if self.serves not in family:
            message = f"{where}.serves: '{self.serves}' is neither {self.of} nor one of its variants"
            raise SpecError(message, did_you_mean(self.serves, family))
        served = builders[self.serves].spec
        for field in ("inputs", "outputs", "samples"):
            if not getattr(served, field):
                hint = f"write them into {builders[self.serves].file}"
                raise SpecError(f"{where}.serves: {self.serves} declares no {field}, which an alias takes over", hint)
        step = EnsembleStep(
            model_name=self.serves,
            input_map={tensor.name: tensor.name for tensor in served.inputs},
            output_map={tensor.name: tensor.name for tensor in served.outputs},
        )
        source = self.model_copy()
        source._steps = (step,)
        # Labels come with the answers of the served model.
        outputs = tuple(tensor.model_copy(update={"labels": None}) for tensor in served.outputs)
        serving = {_BATCH: served.max_batch_size, **spec.serving}
        update = {"source": source, "inputs": served.inputs, "outputs": outputs, "serving": serving}
        return spec.model_copy(update=update)


def _is_variant(builder: Builder, of: str) -> bool:
    return builder.variant is not None and builder.variant.of == of


def _steps(recipe: Recipe, source: AliasSource) -> list[Step]:
    config = {"steps": [step.model_dump(mode="json") for step in source.steps]}
    return [recipe.step("ensemble", _COMPOSE, config=config, needs=recipe.composing)]


def _against_the_served(spec: ModelSpec, source: AliasSource) -> Verification:
    return Verification(_VERIFY, served=True)


KIND = Kind(
    name="alias",
    source=AliasSource,
    summary="a name that stays, for a model or one of its variants",
    takes="`of`: a model of this project; `serves`: it, or one of its variants",
    verified="in the real server, against the model that it serves",
    steps=_steps,
    version_step="ensemble",
    verification=_against_the_served,
    platform="ensemble",
    pins="steps",
    ensemble_steps=lambda source: source.steps,
    scaffold={"_model": onnx_scaffold, "": shipped("alias")},
)
