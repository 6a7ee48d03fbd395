"""source.kind ensemble: models of this project, linked by tensors. Its version says which ones it was verified with.

Triton has one config a model, and an ensemble's steps stand in it: of several versions of an ensemble only one can run
the models that it was verified with. So with `keep` above 1 it is published in another form, as a Python model whose
versions each hold their steps, and run them by calls inside the server.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from modelwright.errors import SpecError
from modelwright.kinds.kind import EnsembleStep, Kind, shipped
from modelwright.kinds.onnx import scaffold as onnx_scaffold
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_server
from modelwright.project.spec import Builder, ModelSpec, SourceSpec

_COMPOSE = StepFunction("ensemble", "modelwright.steps.ensemble:run")
_KEEP = StepFunction("pipeline", "modelwright.steps.pipeline:run")
# An instance waits for the models that it calls: so several, where the requests of one would wait for each other.
_INSTANCES: Mapping[str, Any] = {"instance_group": [{"kind": "KIND_CPU", "count": 4}]}
_NOT_WITH_KEEP = {
    "version_policy": "keep says which versions are served",
    "sequence_batching": "versions that are kept take no sequences",
    "model_transaction_policy": "versions that are kept give one answer to a request",
    "model_warmup": "the models that it calls need not be loaded yet when it warms up",
}


class EnsembleSource(SourceSpec):
    kind: Literal["ensemble"]
    steps: tuple[EnsembleStep, ...] = Field(
        min_length=1, description="The models that run, linked by the names of the ensemble's tensors."
    )
    keep: int = Field(
        1,
        ge=1,
        description="How many versions are served side by side, each with the versions of its models that it was "
        "verified with. Above 1 it is a Python model that calls them: that costs time (docs/pipelines.md).",
    )

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(step.model_name for step in self.steps))

    @property
    def is_kept(self) -> bool:
        """Whether several versions of it are served at once."""
        return self.keep > 1

    def check(self, spec: ModelSpec) -> None:
        if not self.is_kept:
            return
        for index, step in enumerate(self.steps):
            if step.model_version != -1:
                raise ValueError(f"source.steps[{index}].model_version: with keep, each version has its own: remove it")
            if step.model_namespace:
                raise ValueError(f"source.steps[{index}].model_namespace: with keep, it cannot be given: remove it")
        for field, reason in _NOT_WITH_KEEP.items():
            if spec.serving.get(field) is not None:
                raise ValueError(f"serving.{field}: {reason}: remove it, or `keep`")

    def completed(self, builder: Builder, builders: Mapping[str, Builder], faulty: Collection[str]) -> ModelSpec:
        """With `keep`, what its config has beside `serving`. Raises SpecError for models that cannot be called so."""
        spec = builder.spec
        if not self.is_kept:
            return spec
        for name in _run_by(builder, builders):
            where = f"{builder.file}: source.keep: {name}"
            if reason := _not_callable(builders[name].spec.serving):
                hint = "remove `keep`: a plain ensemble can run it, one version at a time"
                raise SpecError(f"{where} {reason}, so versions cannot call it", hint)
            if kind_of(builders[name]).pins == "steps":
                hint = f"give {name} a `keep` as well, or name the models that it runs"
                raise SpecError(f"{where} is an ensemble, of which one version runs its own models at a time", hint)
        kept = {"version_policy": {"latest": {"num_versions": self.keep}}}
        return spec.model_copy(update={"serving": {**_INSTANCES, **spec.serving, **kept}})

    @model_serializer(mode="wrap")
    def _written(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a `keep` that changes nothing: what came of ensembles from before it was a field stays what it is."""
        fields: dict[str, Any] = default(self)
        return {key: value for key, value in fields.items() if key != "keep" or value > 1}


def _run_by(builder: Builder, builders: Mapping[str, Builder]) -> list[str]:
    """The models that a builder runs, directly or through others."""
    found: dict[str, None] = {}
    waiting = list(builder.composing)
    while waiting:
        name = waiting.pop(0)
        if name in builders and name not in found:
            found[name] = None
            waiting += builders[name].composing
    return list(found)


def _not_callable(serving: Mapping[str, Any]) -> str:
    """Why one request and one answer do not do for a model."""
    policy = serving.get("model_transaction_policy")
    if isinstance(policy, Mapping) and policy.get("decoupled"):
        return "is decoupled, and gives any number of answers"
    return "takes sequences" if serving.get("sequence_batching") is not None else ""


def _steps(recipe: Recipe, source: EnsembleSource) -> list[Step]:
    config = {"steps": [step.model_dump(mode="json") for step in source.steps]}
    return [recipe.step("ensemble", _COMPOSE, config=config, needs=recipe.composing)]


def _kept_steps(recipe: Recipe, source: EnsembleSource) -> list[Step]:
    config = {"steps": [step.model_dump(mode="json") for step in source.steps]}
    return [recipe.step("pipeline", _KEEP, config=config, needs=recipe.composing)]


def _kept(source: EnsembleSource) -> Kind[EnsembleSource] | None:
    return _KEPT if source.is_kept else None


KIND = Kind(
    name="ensemble",
    source=EnsembleSource,
    summary="models of this project that run one after another",
    takes="`steps` that name models of this project; tensors are linked and checked; `keep` serves several versions",
    verified="in the real server",
    steps=_steps,
    version_step="ensemble",
    verification=in_server,
    platform="ensemble",
    pins="steps",
    ensemble_steps=lambda source: source.steps,
    other_form=_kept,
    scaffold={"_scale": shipped("ensemble_scale"), "_edges": onnx_scaffold, "": shipped("ensemble")},
)
# With `keep`.
_KEPT = replace(
    KIND,
    platform="",
    backend="python",
    pins="parameter",
    steps=_kept_steps,
    version_step="pipeline",
)
