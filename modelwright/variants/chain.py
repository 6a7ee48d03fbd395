"""The steps of a variant, from its builder's source to what its versions hold.

    torch ─ prune ─ onnx ─ optimise ─ quantise    techniques on the module, the export, techniques on the graph
      └──── source (the plain export) ─ baseline  what it is held against

Steps that a variant shares with its plain model, or with other variants, have the same keys, so they run once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelwright.errors import SpecError
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import Step, StepFunction, StepId
from modelwright.project.spec import EXPORT, Builder, ChainStep, Variant
from modelwright.suggest import did_you_mean
from modelwright.variants.registry import find
from modelwright.variants.technique import BASELINE, Skipped, Stage, Technique, check_rows_served

_BASELINE = StepFunction("baseline", "modelwright.steps.evaluation:measure_plain")
_PLAIN = "source"  # the step that exports the plain model, where a variant has another module
_MODULE = "module"  # role of an export's module
_OTHER_ESTIMATOR = "fit a smaller estimator, with fewer or shallower trees, in a builder of its own"
_HELD_BY_TOLERANCE = ("fp16", "bf16")  # precisions that have a tolerance of their own


@dataclass(frozen=True)
class Chain:
    """The steps that make a variant, needs first."""

    steps: tuple[Step, ...]
    export: StepId  # of the graph that the techniques on the graph start from
    plain: StepId  # the plain model's
    baseline: StepId | None  # the plain model's metrics; None without `evaluate`
    skipped: Skipped | None = None


def chain_of(recipe: Recipe, variant: Variant, builders: Mapping[str, Builder]) -> Chain:
    """The chain of a variant. Raises SpecError for techniques that do not fit each other, the source, or the gates."""
    where = f"{recipe.builder.file}: variant {recipe.builder.name}"
    on_module, on_graph = _split(variant, where)
    _check_gates(recipe.builder, [*on_module, *on_graph], where)
    made = _plain_steps(recipe, where)
    plain = made[-1]
    steps = made[:-1]
    baseline = _baseline(recipe, plain if not on_module else replace(plain, name=_PLAIN))
    chain = _Chain(recipe, replace(plain, name=_PLAIN).id if on_module else plain.id, baseline)
    if on_module:
        if _MODULE not in plain.needs:
            hint = f"it works with source.kind torch, whose entry returns the module; this is {_kind(recipe)}"
            raise SpecError(f"{where}: {on_module[0][0].name} changes a torch module", hint)
        steps.append(replace(plain, name=_PLAIN))
        steps += [baseline] if baseline else []
        chain.source = plain.needs[_MODULE]
        chain.code = dict(plain.code)
        teacher, taught = _teacher(on_module, builders, recipe.builder, where)
        for technique, entry in taught:
            steps += _made_here(chain.add(technique, entry, teacher), where)
        for technique, entry in on_module:
            steps += _made_here(chain.add(technique, entry), where)
        export = replace(
            plain, needs={**plain.needs, _MODULE: chain.source}, code=chain.code, data={**plain.data, **chain.data}
        )
        steps.append(export)
    else:
        export = plain
        steps += [plain, baseline] if baseline else [plain]
    chain.source, chain.code, chain.data = export.id, {}, {}
    ends = (export.id, chain.plain, baseline.id if baseline else None)
    for technique, entry in on_graph:
        added = chain.add(technique, entry)
        if isinstance(added, Skipped):
            return Chain((*steps, *added.checks), *ends, skipped=added)
        steps += added
    return Chain(tuple(steps), *ends)


class _Chain:
    """Adds one technique after the other."""

    def __init__(self, recipe: Recipe, plain: StepId, baseline: Step | None) -> None:
        self._recipe = recipe
        self.plain = plain
        self._baseline = baseline
        self.source: StepId = ("", "")
        self.code: dict[str, str] = {}  # that a stored module is made by
        self.data: dict[str, str] = {}

    def add(
        self, technique: Technique[Any], entry: ChainStep, teacher: Builder | None = None
    ) -> tuple[Step, ...] | Skipped:
        """The steps of one technique. Those of a teacher are held to the teacher's gates, as in its own build."""
        recipe = self._recipe
        if teacher:
            spec = recipe.builder.spec.model_copy(
                update={"gates": teacher.spec.gates, "evaluate": teacher.spec.evaluate}
            )
            recipe = replace(recipe, builder=replace(recipe.builder, spec=spec))
        evaluate = recipe.builder.spec.evaluate
        evaluation: dict[str, Any] = {}
        if evaluate:
            evaluation = {"config": {"evaluate": evaluate}, "code": recipe.code(evaluate)}
        baseline = self._baseline.id if self._baseline else None
        stage = Stage(recipe, technique, self.source, self.plain, baseline, self.code, evaluation)
        made = technique.step(stage, entry.options)
        if isinstance(made, Skipped):
            return made
        steps = (made,) if isinstance(made, Step) else made
        self.source = steps[-1].id
        if technique.works_on == "module":
            self.code |= steps[-1].code
            self.data |= steps[-1].data
        return steps


def _split(variant: Variant, where: str) -> tuple[list[tuple[Technique[Any], ChainStep]], ...]:
    """The techniques before the export and those after it."""
    found = [(find(entry.name), entry) for entry in variant.techniques]
    names = [entry.name for entry in variant.steps]
    for index, (technique, _) in enumerate(found):
        after_export = EXPORT in names and names.index(EXPORT) < names.index(technique.name)
        after_graph = any(earlier.works_on == "graph" for earlier, _ in found[:index])
        if technique.works_on == "module" and (after_export or after_graph):
            hint = f"write it before {EXPORT if after_export else found[index - 1][0].name}"
            raise SpecError(f"{where}: steps: {technique.name} changes the module, before it becomes a graph", hint)
        if technique.works_on == "graph" and EXPORT in names and not after_export:
            hint = f"write it after {EXPORT}"
            raise SpecError(f"{where}: steps: {technique.name} works on the graph that {EXPORT} makes", hint)
        if technique.backend and index < len(found) - 1:
            hint = f"move it to the end, after {found[-1][0].name}"
            raise SpecError(f"{where}: steps: {technique.name} makes what no other technique can change", hint)
    on_module = [item for item in found if item[0].works_on == "module"]
    return on_module, [item for item in found if item[0].works_on == "graph"]


def _check_gates(builder: Builder, techniques: list[tuple[Technique[Any], ChainStep]], where: str) -> None:
    """A model whose answers change needs something that says by how much they may."""
    gates = builder.spec.gates
    if gates.latency:
        check_rows_served(builder, gates.latency.batch, f"{where}: gates.latency.batch")
    if gates.metrics:
        return
    for technique, _ in techniques:
        if technique.lossy and technique.works_on == "module":
            hint = "gates: {accuracy: {max_drop: 0.01}}, for a metric that `evaluate` returns"
            raise SpecError(f"{where}: {technique.name} makes another model, so it needs the gate of a metric", hint)
        if technique.lossy and not gates.tolerance and technique.precision not in _HELD_BY_TOLERANCE:
            hint = "gates: {accuracy: {max_drop: 0.01}}, for a metric that `evaluate` returns; or tolerance: {atol: …}"
            raise SpecError(f"{where}: {technique.name} changes the answers, so it needs a gate", hint)


def _plain_steps(recipe: Recipe, where: str) -> list[Step]:
    """The steps of the builder's plain model. The last one makes its ONNX graph."""
    kind = kind_of(recipe.builder)
    if kind.no_techniques:
        raise SpecError(f"{where}: source.kind {kind.name}: {kind.no_techniques}", _OTHER_ESTIMATOR)
    made = kind.steps(recipe, recipe.builder.spec.source)
    if kind.backend != "onnxruntime" or kind.whole_config or kind.numbered or made[-1].name != kind.version_step:
        hint = "variants work with sources that become an ONNX graph: torch, onnx, huggingface"
        raise SpecError(f"{where}: source.kind {kind.name} has no ONNX graph to start from", hint)
    return made


def _baseline(recipe: Recipe, plain: Step) -> Step | None:
    """The step that measures the plain model. It knows nothing of a variant, so that all of them share it."""
    spec = recipe.builder.spec
    if spec.evaluate is None:
        return None
    code = recipe.code(spec.evaluate)
    return recipe.step(
        BASELINE,
        _BASELINE,
        config={
            "evaluate": spec.evaluate,
            **recipe.tensors,
            "batched": spec.batched,
            **recipe.served_as,
            **recipe.rows_asked,
            **recipe.graph_options,
        },
        code=code,
        data=recipe.declared() | recipe.operators,
        tools=versions(("numpy", "onnxruntime")) | recipe.libraries(code),
        needs={"model": plain.id, **recipe.samples},
    )


def _teacher(
    on_module: list[tuple[Technique[Any], ChainStep]], builders: Mapping[str, Builder], builder: Builder, where: str
) -> tuple[Builder | None, list[tuple[Technique[Any], ChainStep]]]:
    """The teacher that a technique names, and the techniques that make its module; none where it is the plain model."""
    for technique, entry in on_module:
        name = technique.teacher(entry.options) if entry.options else None
        if name is None:
            continue
        place = f"{where}: {technique.name}.teacher"
        models = {other.name: other for other in builders.values() if other.file == builder.file}
        if name not in models:
            raise SpecError(f"{place}: '{name}' is no model of this file", did_you_mean(name, models))
        variant = models[name].variant
        techniques = _split(variant, where)[0] if variant else []
        if variant and variant.techniques and not techniques:
            hint = "name the plain model, or a variant made by techniques on the module"
            raise SpecError(f"{place}: '{name}' differs from the plain model in its graph alone", hint)
        twice = {item.name for item, _ in techniques} & {item.name for item, _ in on_module}
        if name == builder.name or twice:
            what = "is itself" if name == builder.name else f"is made by {twice.pop()}, too"
            raise SpecError(f"{place}: '{name}' {what}", "name the plain model, or a variant without that step")
        return models[name], techniques
    return None, []


def _made_here(steps: tuple[Step, ...] | Skipped, where: str) -> tuple[Step, ...]:
    if isinstance(steps, Skipped):
        raise SpecError(f"{where}: {steps.reason}")
    return steps


def _kind(recipe: Recipe) -> str:
    return f"source.kind {kind_of(recipe.builder).name}"
