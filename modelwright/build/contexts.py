"""What a step is given when it runs: its inputs' folders, and the models that it serves in a trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwright.build.numbered import numbered_versions
from modelwright.build.store import Artifact
from modelwright.build.workspace import Workspace, known
from modelwright.config.ensembles import check_ensemble
from modelwright.config.model_config import ConfigTensors, config_of, tensors_of
from modelwright.config.render import plain_text
from modelwright.config.routers import check_arms
from modelwright.facts.made import Made
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import Step, StepId
from modelwright.project.family import family_of
from modelwright.project.operators import operator_libraries
from modelwright.project.spec import Builder
from modelwright.steps.context import ServedModel, StepContext
from modelwright.triton.layout import PINS, own_file
from modelwright.variants.model_steps import VERIFY
from modelwright.variants.registry import version_step

Pinned = Mapping[str, Mapping[int, Path]]  # model → number → the files of a published version

CHECKPOINTS = "checkpoints"  # in the project's state
_TRIAL_VERSION = 1  # what a model that numbers no versions itself has in a trial


def checkpoints_of(state: Path, key: str) -> Path:
    """Where a step keeps what it goes on from when it is killed."""
    return state / CHECKPOINTS / key


@dataclass(frozen=True)
class Contexts:
    """Makes the context of each step from the artifacts of the steps before it."""

    workspace: Workspace
    artifacts: Mapping[StepId, Artifact]

    def of(self, step: Step, key: str = "") -> StepContext:
        """The context of a step, whose key is known where it really runs.

        Raises ModelwrightError for an ensemble whose wiring does not fit what its composing models are."""
        builders, project = self.workspace.builders, self.workspace.project
        builder = builders[step.model]
        self._check_wiring(builder, step)
        served: list[ServedModel] = []
        if "served" in step.config:
            family = [builders[name] for name in family_of(builder, builders)]
            pinned = self._pinned(builder)
            served = [self._served_model(model, pinned, is_tested=model is builder) for model in family]
        return StepContext(
            builder=builder,
            function=step.function,
            config=step.config,
            target=project.target,
            inputs={role: self.artifacts[need].folder / "files" for role, need in step.needs.items()},
            declared=frozenset({*step.code, *step.data}),
            server=project.server,
            wheels=project.wheels,
            served=tuple(served),
            startup_timeout_s=project.startup_timeout_s,
            step=step.name,
            cache=project.state / "cache",
            plan_places=project.plan_places,
            fetch_limits=project.fetch_limits,
            registry=project.registry,
            checkpoints=checkpoints_of(project.state, key) if key else None,
            environments=project.environments,
        )

    def _check_wiring(self, builder: Builder, step: Step) -> None:
        """What can be checked only now that the composing models are built."""
        kind = kind_of(builder)
        routed = kind.routed(builder.spec.source)
        if step.name != VERIFY or not (kind.ensemble_steps(builder.spec.source) or routed):
            return  # an ensemble whose config was given whole is for the server to check
        builders = self.workspace.builders
        tensors = {name: known(self._tensors(builders[name])) for name in builder.composing}
        (check_arms if routed else check_ensemble)(builder, builders, tensors, self._tensors(builder))

    def _served_model(self, builder: Builder, pinned: Pinned, *, is_tested: bool) -> ServedModel:
        """A model as a trial serves it: batched, but without labels and tuning; any version of the tested one, and of
        others those that are `pinned`."""
        kind, source = kind_of(builder), builder.spec.source
        config = config_of(builder, self._tensors(builder), kind.tried(builder.spec.serving))
        made = self.artifacts[version_step(builder)]
        fixed = numbered_versions(builder, made)
        others = dict(pinned.get(builder.name, {}))
        versions = {number: made.path(f"versions/{number}") for number in fixed}
        versions = others | (versions or {self._trial_version(builder.name, pinned): made.path("version")})
        if kind.pins == "parameter" and builder.composing:
            numbers = {name: self._trial_version(name, pinned) for name in builder.composing}
            config.parameters[PINS].string_value = json.dumps({str(own): numbers for own in sorted(versions)})
        libraries = {} if kind.whole_config else operator_libraries(builder)
        for output in config.output:
            output.ClearField("label_filename")  # a trial asks for tensors, and has no label files
        if (is_tested and fixed) or others:
            config.version_policy.all.SetInParent()
        return ServedModel(
            builder.name,
            plain_text(config),
            versions,
            is_prebuilt=bool(fixed),
            is_published=bool(others),
            beside={own: file for path, file in libraries.items() if (own := own_file(path, builder.name))},
            top=made.path("top") if kind.files_beside(source) else None,
            is_complete=not kind.whole_config or bool(builder.composing or (config.input and config.output)),
        )

    def _trial_version(self, model: str, pinned: Pinned) -> int:
        """The version of a composing model that a trial serves, and the newest there."""
        builder = self.workspace.builders[model]
        others = max(pinned.get(model, ()), default=_TRIAL_VERSION - 1)
        return max(numbered_versions(builder, self.artifacts[version_step(builder)]), default=others + 1)

    def _pinned(self, builder: Builder) -> Pinned:
        """The published versions that a router calls by their numbers."""
        found: dict[str, dict[int, Path]] = {}
        for _, item in kind_of(builder).routed(builder.spec.source):
            if item.version is not None:
                folder = self.workspace.repository.folder(item.model, item.version)
                found.setdefault(item.model, {})[item.version] = folder
        return found

    def _tensors(self, builder: Builder) -> ConfigTensors:
        return tensors_of(builder, self.artifacts[version_step(builder)].facts_as(Made))
