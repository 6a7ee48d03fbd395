"""The steps of a model: golden samples, what its kind and its techniques make of its source, and the verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelwright.digest import Fingerprints, module_file
from modelwright.errors import SpecError
from modelwright.kinds.kind import Verification
from modelwright.kinds.recipe import SAMPLES, TRAINING, Recipe, versions
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import Step, StepFunction, StepId
from modelwright.project.family import family_of
from modelwright.project.plan_places import PlanPlaces
from modelwright.project.spec import Builder, ModelSpec
from modelwright.suggest import did_you_mean
from modelwright.triton.releases import Release
from modelwright.variants.chain import Chain, chain_of
from modelwright.variants.registry import is_lossy, precision_of, techniques_of, version_step
from modelwright.variants.technique import BASELINE, PLAIN
from modelwright.verification.batches import LARGEST_SHUFFLED

VERIFY = "verify"
_SAMPLE = StepFunction("samples", "modelwright.steps.samples:run")
_VARIANT = StepFunction("verify_variant", "modelwright.steps.verify_variant:run")


@dataclass(frozen=True)
class ModelSteps:
    """The steps of one model, needs first."""

    steps: tuple[Step, ...]
    skipped: str = ""  # why the model cannot be made here; `steps` are then what can be tried


def model_steps(
    builder: Builder,
    builders: Mapping[str, Builder],
    target: Release,
    fingerprints: Fingerprints,
    plan_places: PlanPlaces | None = None,
) -> ModelSteps:
    """The steps of one model. `builders` are those of the whole project.

    Raises SpecError for entries and files that are not there, and for a chain of techniques that does not work.
    """
    _check_entries(builder, fingerprints)
    composing = {name: version_step(builders[name]) for name in builder.composing}
    recipe = Recipe(builder, target, fingerprints, composing, plan_places or PlanPlaces())
    entry = builder.spec.samples
    samples = [recipe.code_step(SAMPLES, _SAMPLE, entry)] if entry else []
    family = [builders[name] for name in family_of(builder, builders)]
    if not (builder.variant and builder.variant.techniques):
        made = kind_of(builder).steps(recipe, builder.spec.source)
        return ModelSteps((*samples, *made, _verify_step(recipe, family)))
    chain = chain_of(recipe, builder.variant, builders)
    if chain.skipped is not None:
        return ModelSteps((*samples, *chain.steps) if chain.skipped.checks else (), chain.skipped.reason)
    return ModelSteps((*samples, *chain.steps, _verify_step(recipe, family, chain)))


def _verify_step(recipe: Recipe, family: list[Builder], chain: Chain | None = None) -> Step:
    """`family` is the model itself and all its composing models; `chain` is that of a variant."""
    builder = recipe.builder
    spec = builder.spec
    verification = kind_of(builder).verification(spec, spec.source)
    code = recipe.code(spec.reference) if spec.reference else {}
    code |= recipe.code(spec.evaluate) if spec.evaluate else {}
    config: dict[str, Any] = {
        "reference": spec.reference,
        "evaluate": spec.evaluate,
        "gates": spec.gates.model_dump(mode="json"),
        **recipe.tensors,
        **_rows(spec, verification),
        **verification.config,
    }
    libraries: dict[str, str] = {}
    for item in family if verification.served else [builder]:
        if kind_of(item).backend == "onnxruntime":
            libraries |= replace(recipe, builder=item).operators
    needs = {**recipe.samples, "model": version_step(builder), **_training(builder)}
    if verification.served:
        # The server runs the composing models too, so their files are needed, and their configs count.
        needs |= {f"member {item.name}": version_step(item) for item in family if item is not builder}
        config["served"] = {item.name: kind_of(item).tried(item.spec.serving) for item in family}
        config["release"] = recipe.target.name
    elif not kind_of(builder).whole_config:
        config |= recipe.served_as | recipe.graph_options
    function = verification.function
    if chain is not None:
        config["variant"] = {"precision": precision_of(builder), "lossy": is_lossy(builder)}
        needs |= _compared(chain)
        function = next((item.verification for item in techniques_of(builder) if item.verification), _VARIANT)
    return recipe.step(
        VERIFY,
        function,
        config=config,
        code=code,
        data=(recipe.declared() if code else {}) | libraries,
        tools=versions(("numpy", "onnxruntime")) | recipe.libraries(code),
        needs=needs,
    )


def _training(builder: Builder) -> dict[str, StepId]:
    """The step that trained, where a gate is of its folds. Raises SpecError for a kind that trains nothing."""
    gates = builder.spec.gates.folds
    if not gates:
        return {}
    step = kind_of(builder).training_step
    if not step:
        where = f"{builder.file}: gates.{next(iter(gates))}.of"
        raise SpecError(f"{where}: source.kind {kind_of(builder).name} trains nothing", "it is for kind torch")
    return {TRAINING: (builder.name, step)}


def _compared(chain: Chain) -> dict[str, StepId]:
    """What a variant is held against: the export that its graph was made of, and the plain model."""
    measured = {BASELINE: chain.baseline} if chain.baseline else {}
    return {"expected": chain.export, PLAIN: chain.plain, **measured}


def _rows(spec: ModelSpec, verification: Verification) -> dict[str, int]:
    """What of max_batch_size a verification depends on. In onnxruntime the samples run as one batch, if any batch is
    possible, and then in batches of a few."""
    if verification.served:
        return {"max_batch_size": spec.max_batch_size}
    return {"rows_together": min(spec.max_batch_size, LARGEST_SHUFFLED)}


def _check_entries(builder: Builder, fingerprints: Fingerprints) -> None:
    """Every module:function must be there, before anything runs."""
    for field, entry in builder.entries():
        check_entry(builder, fingerprints, field, entry)


def check_entry(builder: Builder, fingerprints: Fingerprints, field: str, entry: str) -> None:
    """Raise SpecError for a module:function that is not in the builder's folder."""
    module, _, function = entry.partition(":")
    file = module_file(builder.folder, module)
    if file is None:
        own = [path.stem for path in builder.folder.glob("*.py")]
        where = f"{builder.file}: {field}: there is no {module.replace('.', '/')}.py in its folder"
        raise SpecError(where, did_you_mean(module, own))
    shown = f"{builder.file.rpartition('/')[0]}/{file.relative_to(builder.folder).as_posix()}"
    code = fingerprints.code(file, shown)
    if not code.defines(function):
        hint = did_you_mean(function, [name for name in code.names if not name.startswith("_")])
        raise SpecError(f"{builder.file}: {field}: {shown} has no function '{function}'", hint)
