"""source.kind router: a traffic split inside Triton. Each request goes to one of several models, by weight.

Its version is a model.py for the Python backend, `steps/router_model.py`. Its tensors, its samples and its
max_batch_size are those of its arms. Weights are parameters of its config, so a change of them is no new version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from modelwright.errors import SpecError
from modelwright.kinds.kind import Kind, Verification, shipped
from modelwright.kinds.onnx import scaffold as onnx_scaffold
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Builder, ModelSpec, Name, SourceSpec, StrictModel, Version
from modelwright.suggest import did_you_mean
from modelwright.triton.routers import ARM, SHADOW, STICKY, Routed

_MODEL = Path(__file__).resolve().parent.parent / "steps" / "router_model.py"
_WRITE = StepFunction("router", "modelwright.steps.router:run")
_VERIFY = StepFunction("verify_router", "modelwright.steps.router:verify")
_FIRST = "24.10"  # the oldest release whose Python backend its model.py was tried with
_BATCH = "max_batch_size"
_NOT_ITS_OWN = {  # fields of `serving`
    _BATCH: "a router has that of its arms",
    "input": "a router has the tensors of its arms",
    "output": "a router has the tensors of its arms",
    "sequence_batching": "the requests of a sequence would go to several arms",
    "model_transaction_policy": "a router gives one answer to a request",
    "model_warmup": "it would call arms that are not loaded yet; warm them up, in their own serving",
    "response_cache": "it would answer for an arm that the split does not choose; cache in the arms' own serving",
}


def _number(value: object) -> object:
    if isinstance(value, bool | str):
        raise ValueError(f"expected a number, got {value!r}")
    return value


_Number = Annotated[float, BeforeValidator(_number)]


class RouterArm(StrictModel):
    model: Name = Field(description="A model of this project.")
    version: Version | None = Field(None, description="The version that answers. Without it, the newest served.")
    weight: _Number = Field(ge=0, description="How often it is chosen, against the weights of the others.")

    @property
    def routed(self) -> Routed:
        return Routed(self.model, self.version)


class RouterShadow(StrictModel):
    model: Name = Field(description="A model of this project.")
    version: Version | None = Field(None, description="The version that is asked. Without it, the newest served.")
    fraction: _Number = Field(gt=0, le=1, description="The share of requests of which it gets a copy.")

    @property
    def routed(self) -> Routed:
        return Routed(self.model, self.version)


class RouterSource(SourceSpec):
    kind: Literal["router"]
    arms: tuple[RouterArm, ...] = Field(min_length=1, description="The models that answer.")
    sticky: str | None = Field(
        None,
        min_length=1,
        description="A request parameter: requests with the same value go to the same arm. Without it, each request is "
        "split at random, and so is one without this parameter.",
    )
    shadow: tuple[RouterShadow, ...] = Field(
        (), description="Models that get copies of requests. Their answers are dropped, their errors counted."
    )
    needs_samples: ClassVar[bool] = False
    needs_tensors: ClassVar[bool] = False
    composing_in: ClassVar[str] = "source: model"

    @property
    def routed(self) -> list[tuple[str, Routed]]:
        """(field of model.yaml, what it names) of all arms, then of all shadows."""
        arms = [(f"source.arms[{index}]", arm.routed) for index, arm in enumerate(self.arms)]
        return arms + [(f"source.shadow[{index}]", shadow.routed) for index, shadow in enumerate(self.shadow)]

    @property
    def parameters(self) -> dict[str, str]:
        """What config.pbtxt says of the split."""
        found = {ARM + arm.routed.name: _text(arm.weight) for arm in self.arms}
        found |= {SHADOW + shadow.routed.name: _text(shadow.fraction) for shadow in self.shadow}
        return found | ({STICKY: self.sticky} if self.sticky else {})

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(routed.model for _, routed in self.routed))

    def samples_of(self) -> str:
        return self.arms[0].model

    def check(self, spec: ModelSpec) -> None:
        for field in ("inputs", "outputs", "samples", "reference", "evaluate", "variants"):
            if getattr(spec, field):
                raise ValueError(f"{field}: a router has none of its own: they are those of its arms")
        for field, reason in _NOT_ITS_OWN.items():
            if field in spec.serving:
                raise ValueError(f"serving.{field}: {reason}")
        parameters = spec.serving.get("parameters")
        for key in parameters if isinstance(parameters, dict) else ():
            if not key.isupper():
                raise ValueError(f"serving.parameters.{key}: a router's own follow from source, others are in capitals")
        arms, shadows = [arm.routed for arm in self.arms], [shadow.routed for shadow in self.shadow]
        for field, routed in (("arms", arms), ("shadow", shadows)):
            for item in routed:
                if routed.count(item) > 1:
                    raise ValueError(f"source.{field}: {item.name} stands there twice: add up what it gets")
        if not any(arm.weight for arm in self.arms):
            raise ValueError("source.arms: all weights are 0: give one arm a weight above 0")
        if len(self.arms) == 1 and not self.shadow:
            hint = f"add an arm, or a shadow; for another name write {{kind: alias, of: {self.arms[0].model}, …}}"
            raise ValueError(f"source.arms: one arm gets all requests, there is nothing to split: {hint}")

    def completed(self, builder: Builder, builders: Mapping[str, Builder], faulty: Collection[str]) -> ModelSpec:
        """The spec with what the arms have. Raises SpecError for a model that cannot be one."""
        for field, routed in self.routed:
            _check_model(f"{builder.file}: {field}.model", builder.name, routed.model, builders, faulty)
        first = builders[self.arms[0].model]
        for field in ("inputs", "outputs", "samples"):
            if not getattr(first.spec, field):
                where = f"{builder.file}: source.arms[0]: {first.name} declares no {field}, which a router takes over"
                raise SpecError(where, f"write them into {first.file}")
        # Labels stand beside the arm's config, and a request for classes is answered by the router's.
        outputs = tuple(tensor.model_copy(update={"labels": None}) for tensor in first.spec.outputs)
        largest = min(builders[routed.model].spec.max_batch_size for _, routed in self.routed)
        serving = {_BATCH: largest, **builder.spec.serving}
        return builder.spec.model_copy(update={"inputs": first.spec.inputs, "outputs": outputs, "serving": serving})


def _check_model(where: str, own: str, name: str, builders: Mapping[str, Builder], faulty: Collection[str]) -> None:
    """Raises SpecError for a model that cannot be an arm or a shadow."""
    if name == own:
        raise SpecError(f"{where}: a router cannot send requests to itself", "name another model")
    if name in faulty:
        raise SpecError(f"{where}: {name} is faulty itself", "correct its model.yaml, then this one is read, too")
    if name not in builders:
        known = [other for other, found in builders.items() if not found.spec.source.samples_of()]
        raise SpecError(f"{where}: no builder makes a model named '{name}'", did_you_mean(name, known))
    source = builders[name].spec.source
    if source.samples_of():
        raise SpecError(
            f"{where}: {name} is of kind {source.kind} and passes requests on itself", "name the models that answer"
        )


def _text(number: float) -> str:
    """90 for 90.0: a parameter that people edit."""
    return str(int(number)) if number.is_integer() else repr(number)


def _steps(recipe: Recipe, source: RouterSource) -> list[Step]:
    if recipe.target.name < _FIRST:
        where = f"{recipe.builder.file}: source.kind router: it is for Triton {_FIRST} and newer"
        raise SpecError(
            f"{where}, and this project is for {recipe.target.name}", "set a newer release: modelwright.toml"
        )
    data = {_MODEL.name: recipe.fingerprints.file(_MODEL)}
    return [recipe.step("router", _WRITE, config=recipe.tensors, data=data)]


def _against_arms(spec: ModelSpec, source: RouterSource) -> Verification:
    called = {"arms": [arm.routed.name for arm in source.arms], "shadow": [item.routed.name for item in source.shadow]}
    return Verification(_VERIFY, served=True, config=called)


KIND = Kind(
    name="router",
    source=RouterSource,
    summary="a traffic split between models or versions",
    takes="`arms`: models of this project and their weights; `sticky`, `shadow`",
    verified="in the real server, against each of its arms",
    steps=_steps,
    version_step="router",
    verification=_against_arms,
    backend="python",
    parameters=lambda source: source.parameters,
    routed=lambda source: source.routed,
    scaffold={"_model": onnx_scaffold, "_next": onnx_scaffold, "": shipped("router")},
)
