"""A project that was read: its builders, and the steps they come to. Planning and building both start here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelwright import tools
from modelwright.build.plan import Planned, in_order, plan
from modelwright.build.store import Store
from modelwright.config.ensembles import check_ensemble
from modelwright.config.environments import check_serving
from modelwright.config.model_config import ConfigTensors, tensors_of
from modelwright.digest import Fingerprints
from modelwright.errors import SpecError
from modelwright.facts.part import JsonObject
from modelwright.kinds.model_steps import model_steps
from modelwright.kinds.registry import kind_of, source_model
from modelwright.kinds.step import Step, StepId
from modelwright.project.family import family_of
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builders
from modelwright.project.spec import Builder
from modelwright.repository.repository import Repository
from modelwright.suggest import did_you_mean


@dataclass(frozen=True)
class Workspace:
    """All of a project that a plan and a build look at."""

    project: ProjectConfig
    builders: dict[str, Builder]  # the whole project's
    selected: list[Builder]
    steps: list[Step]  # of the selected builders, needs first
    fingerprints: Fingerprints
    store: Store
    repository: Repository


def open_workspace(project: ProjectConfig, names: Sequence[str] = ()) -> Workspace:
    """Read and check all that can be checked before anything runs. Raises SpecError or ConfigError."""
    tools.version.cache_clear()  # packages may have been installed since, in a process that lives on
    builders = read_builders(project, source_model)
    fingerprints = Fingerprints(project.state / "cache" / "files.json")
    selected = [builders[name] for name in _selected(builders, names)]
    for builder in selected:
        check_serving(builder, project.target)
    for builder in selected:
        if builder.composing:
            _check_ensemble_early(builder, builders)
    steps = [step for item in selected for step in model_steps(item, builders, project.target, fingerprints)]
    repository = Repository(project.repository, project.staging)
    return Workspace(project, builders, selected, in_order(steps), fingerprints, Store(project.store), repository)


def plan_workspace(workspace: Workspace) -> list[Planned]:
    """What a build would run, and why. Nothing is run or written."""
    return plan(workspace.steps, workspace.store, LastPublished(workspace.repository))


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
    """None where neither a file nor model.yaml names the tensors yet."""
    return tensors if tensors.inputs else None


def _selected(builders: Mapping[str, Builder], names: Sequence[str]) -> list[str]:
    """The named models, what they run, and the ensembles that run them, whose answers change with theirs; or all."""
    if not names:
        return list(builders)
    for name in names:
        if name not in builders:
            raise SpecError(f"no builder makes a model named '{name}'", did_you_mean(name, builders))
    families = {name: set(family_of(builder, builders)) for name, builder in builders.items()}
    chosen = set(names)
    while True:
        joined = chosen.union(*(family for family in families.values() if family & chosen and len(family) > 1))
        if joined == chosen:
            return [name for name in builders if name in chosen]
        chosen = joined


def _check_ensemble_early(builder: Builder, builders: Mapping[str, Builder]) -> None:
    """Check the wiring by what the model.yaml files declare, before anything is built."""
    family_of(builder, builders)
    whole = kind_of(builder).whole_config
    for name in builder.composing:
        if name not in builders:
            field = "serving.ensemble_scheduling.step" if whole else "source.steps"
            where = f"{builder.file}: {field}: model_name '{name}' is no model of this project"
            hint = did_you_mean(name, builders)
            raise SpecError(where, f"adopt it too, or {hint}" if whole else hint)
    if whole:
        return
    declared = {name: known(tensors_of(builders[name])) for name in builder.composing}
    check_ensemble(builder, builders, declared, tensors_of(builder))
