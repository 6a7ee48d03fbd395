"""A project that was read: its builders, and the steps they come to. Planning and building both start here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace

from modelwright import tools
from modelwright.build.faults import Faults
from modelwright.build.plan import BuildPlan, Planned, in_order, plan_step
from modelwright.build.store import Artifact, Store
from modelwright.config import model_files
from modelwright.config.ensembles import check_ensemble
from modelwright.config.environments import check_serving
from modelwright.config.model_config import ConfigTensors, tensors_of
from modelwright.config.routers import check_arms
from modelwright.digest import Fingerprints
from modelwright.errors import ModelwrightError, SpecError, located
from modelwright.facts.part import JsonObject
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import Step, StepId
from modelwright.project.family import family_of
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import Builders, read_builders
from modelwright.project.spec import FILE, Builder
from modelwright.repository.repository import Repository
from modelwright.repository.versions import composing_first
from modelwright.suggest import did_you_mean
from modelwright.variants.model_steps import model_steps
from modelwright.variants.registry import LOOKUPS

PLAN = "plan"  # what is done, in the log of a bug


@dataclass(frozen=True)
class Workspace:
    """All of a project that a plan and a build look at."""

    project: ProjectConfig
    builders: dict[str, Builder]  # the whole project's, as far as they are valid
    families: dict[str, frozenset[str]]  # of each selected model: itself and all that it runs, faulty ones included
    steps: list[Step]  # of the selected models, needs first
    fingerprints: Fingerprints
    store: Store
    repository: Repository
    faults: Faults  # of the selected models
    skipped: dict[str, str]  # of the selected models: those that cannot be made here, and why
    left_out: tuple[str, ...] = ()  # models that are built on request only, and were not asked for

    @property
    def names(self) -> list[str]:
        """The selected models."""
        return list(self.families)

    @property
    def selected(self) -> list[Builder]:
        """The builders of those that are valid."""
        return [self.builders[name] for name in self.families if name in self.builders]

    def waits_for(self, model: str) -> list[str]:
        """The models that this one runs and that failed."""
        return sorted((self.families[model] & self.faults.errors.keys()) - {model})


def open_workspace(project: ProjectConfig, names: Sequence[str] = (), *, everything: bool = False) -> Workspace:
    """Read and check all that can be checked before anything runs. What is wrong with a model is in `faults`.

    Without names, models that are built on request are left out, unless `everything` is asked for. Raises SpecError
    for a name that no builder has.
    """
    tools.version.cache_clear()  # packages may have been installed since, in a process that lives on
    repository = Repository.of(project)
    fingerprints = Fingerprints(project.state / "cache" / "files.json")
    builders, faulty = _without_circles(read_builders(project, LOOKUPS))
    families = _families(builders, faulty, repository)
    if names and everything:
        names = [
            *names,
            *(name for name, builder in builders.items() if builder.variant and builder.variant.of in names),
        ]
    chosen = _selected(families, names) if names or everything else _without_request(families, builders)
    left_out = () if names else tuple(name for name in families if name not in chosen)
    families = {name: families[name] for name in chosen}
    store, faults = Store(project.store), Faults(project)
    workspace = Workspace(project, builders, families, [], fingerprints, store, repository, faults, {}, left_out)
    for name in families.keys() & faulty.keys():
        faults.add(name, FILE, faulty[name])
    for builder in workspace.selected:
        named = located(f"variant {builder.name}") if builder.variant else nullcontext()
        with faults.of(builder.name, PLAN), named:
            check_serving(builder, project.target)
            model_files.sources(builder)  # labels, warm-up data, …: missing ones are found before hours of training
    for builder in workspace.selected:
        if builder.composing and not workspace.waits_for(builder.name):
            with faults.of(builder.name, PLAN):
                _check_ensemble_early(builder, builders)
                _check_pinned_arms(builder, repository)
    workspace.steps.extend(_steps(workspace))
    return workspace


def _steps(workspace: Workspace) -> list[Step]:
    """The steps of every model that can be built as things are, needs first."""
    faults = workspace.faults
    steps: list[Step] = []
    for builder in workspace.selected:
        if builder.name not in faults.errors and not workspace.waits_for(builder.name):
            with faults.of(builder.name, PLAN):
                project = workspace.project
                made = model_steps(
                    builder, workspace.builders, project.target, workspace.fingerprints, project.plan_places
                )
                steps += made.steps
                if made.skipped:
                    workspace.skipped[builder.name] = made.skipped
    for name in workspace.names:
        if missing := sorted((workspace.families[name] & workspace.skipped.keys()) - {name}):
            workspace.skipped[name] = f"it runs {' and '.join(missing)}, which cannot be made here"
            steps = [step for step in steps if step.model != name]
    # A composing model may have failed after its ensemble was looked at.
    sound = [step for step in steps if step.model not in faults.errors and not workspace.waits_for(step.model)]
    return in_order(sound)


def plan_workspace(workspace: Workspace) -> BuildPlan:
    """What a build would run, and why. Nothing is run or published."""
    before, faults = LastPublished(workspace.repository), workspace.faults
    artifacts: dict[StepId, Artifact] = {}
    planned: list[Planned] = []
    first: dict[str, Step] = {}  # by the key of a step that must run
    for step in workspace.steps:
        if step.model not in faults.errors:
            with faults.of(step.model, step.name):
                entry = plan_step(step, artifacts, workspace.store, before)
                if entry.status == "run" and entry.key:
                    other = first.setdefault(entry.key, step)
                    if other is not step:
                        entry = replace(entry, status="shared", reason=f"the same as {other.model} {other.name}")
                planned.append(entry)
                if entry.artifact:
                    artifacts[step.id] = entry.artifact
    others = [name for name in workspace.names if name not in faults.errors]
    waiting = {name: waits_text(failed) for name in others if (failed := workspace.waits_for(name))}
    steps = tuple(entry for entry in planned if entry.step.model not in faults.errors.keys() | waiting)
    return BuildPlan(steps, dict(faults.errors), waiting, dict(workspace.skipped), workspace.left_out)


def waits_text(failed: Sequence[str]) -> str:
    """Why a model is held back: `it waits for doubled, which failed`."""
    return f"it waits for {' and '.join(failed)}, which failed"


class LastPublished:
    """What each step's key covered when the model was last published: a plan explains its reasons by it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, dict[str, JsonObject]] = {}

    def __call__(self, step: StepId) -> JsonObject | None:
        model, name = step
        if model not in self._known:
            latest = self._repository.latest(model)
            lineage = latest[1].lineage if latest else ()
            self._known[model] = {entry.step: entry.key_content.as_json() for entry in lineage}
        return self._known[model].get(name)


def known(tensors: ConfigTensors) -> ConfigTensors | None:
    """None where neither a file nor model.yaml names all tensors yet: it may list the inputs of an ONNX model alone."""
    return tensors if tensors.inputs and tensors.outputs else None


def _without_circles(read: Builders) -> tuple[dict[str, Builder], dict[str, Exception]]:
    """Builders by name, and what is wrong with the others: also those of ensembles that run themselves."""
    faulty = dict(read.faulty)
    for builder in read.valid.values():
        try:
            family_of(builder, read.valid)
        except Exception as error:
            faulty[builder.name] = error
    return {name: builder for name, builder in read.valid.items() if name not in faulty}, faulty


def _families(
    builders: Mapping[str, Builder], faulty: Collection[str], repository: Repository
) -> dict[str, frozenset[str]]:
    """Every model's family. Where model.yaml cannot tell, it is as published: that is what the server runs now."""
    there = {*builders, *faulty}
    families = dict.fromkeys(faulty, frozenset[str]())
    for name, builder in builders.items():
        known = family_of(builder, builders)
        families[name] = frozenset({*known, *(other for member in known for other in builders[member].composing)})
    for name, family in families.items():
        families[name] = (family & there) | {name}
        if name in faulty or not family <= there:
            with suppress(ModelwrightError):  # a config that cannot be read: the server does not serve it
                families[name] |= there.intersection(composing_first(repository, [name]))
    return dict(sorted(families.items()))


def _without_request(families: Mapping[str, frozenset[str]], builders: Mapping[str, Builder]) -> list[str]:
    """All models but those that are built on request, unless one of the others runs them."""

    def on_request(name: str) -> bool:
        variant = builders[name].variant if name in builders else None
        return variant is not None and variant.on_request

    wanted = {member for name, family in families.items() if not on_request(name) for member in family}
    return [name for name in families if name in wanted]


def _selected(families: Mapping[str, frozenset[str]], names: Sequence[str]) -> list[str]:
    """The named models, what they run, and the ensembles that run them, whose answers change with theirs; or all."""
    if not names:
        return list(families)
    for name in names:
        if name not in families:
            raise SpecError(f"no builder makes a model named '{name}'", did_you_mean(name, families))
    chosen = set(names)
    while True:
        joined = chosen.union(*(family for family in families.values() if family & chosen and len(family) > 1))
        if joined == chosen:
            return [name for name in families if name in chosen]
        chosen = joined


def _check_pinned_arms(builder: Builder, repository: Repository) -> None:
    """A version that a router names must be there: it answers as it was published."""
    for field, item in kind_of(builder).routed(builder.spec.source):
        known = repository.versions(item.model) if item.version is not None else []
        if item.version is not None and item.version not in known:
            there = f"there is {' and '.join(map(str, known))}" if known else "none is published"
            where = f"{builder.file}: {field}.version: {item.model} has no version {item.version}: {there}"
            raise SpecError(where, "name one that is there; without version, the newest answers")


def _check_ensemble_early(builder: Builder, builders: Mapping[str, Builder]) -> None:
    """Check the wiring by what the model.yaml files declare, before anything is built."""
    kind, source = kind_of(builder), builder.spec.source
    for name in builder.composing:
        if name not in builders:
            where = f"{builder.file}: {source.composing_in} '{name}' is no model of this project"
            hint = did_you_mean(name, builders)
            raise SpecError(where, f"adopt it too, or {hint}" if kind.whole_config else hint)
    check = check_ensemble if kind.ensemble_steps(source) else check_arms if kind.routed(source) else None
    if check is None:
        return  # a config that was given whole, or calls that only model.py knows
    declared = {name: known(tensors_of(builders[name])) for name in builder.composing}
    check(builder, builders, declared, tensors_of(builder))
