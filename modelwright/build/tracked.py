"""A build's models as MLflow is told of them: which were built, from what, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from modelwright.build.listener import Listener
from modelwright.build.outcome import Outcome
from modelwright.build.publisher import source_commit
from modelwright.build.scheduler import Built
from modelwright.build.workspace import Workspace
from modelwright.errors import ModelwrightError, VerifyError
from modelwright.facts.key_content import KeyContent
from modelwright.facts.training import TRAINING_FILE
from modelwright.fsops import read_text
from modelwright.project.files import local_file
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import Builder
from modelwright.tracking import recorder
from modelwright.tracking.describe import BuiltModel, RanStep
from modelwright.tracking.outbox import Outbox
from modelwright.tracking.published import put, read_training
from modelwright.tracking.recorder import check_installed

__all__ = ["check_installed", "note", "send"]


def note(workspace: Workspace, built: Built, outcomes: Sequence[Outcome]) -> list[str]:
    """Put a record of every model that ran, or of which something was published, into the outbox: their names.

    Only for the holder of the build lock. A disk that has no room for them fails no build.
    """
    outbox, noted = Outbox.of(workspace.project.state), []
    outbox.clean()
    ended_ms = time.time_ns() // 1_000_000
    for outcome in outcomes:
        if outcome.ran or outcome.status in ("new", "config"):
            model = _built_model(workspace, built, outcome)
            version = outcome.version if model.manifest else None
            folder = workspace.repository.folder(outcome.model, version) if version is not None else None
            put(outbox, model, folder, ended_ms, version=version, models=workspace.project.tracking.models)
            noted.append(outcome.model)
    return noted


def send(
    project: ProjectConfig, outcomes: list[Outcome], noted: Sequence[str], listener: Listener
) -> tuple[list[Outcome], str]:
    """Bring the records to MLflow: the outcomes, with a warning where something is not recorded, and why it is not."""
    if noted:
        listener.recording(len(noted))
    sent = recorder.send(project, noted)
    if not sent.warning or not outcomes:
        return outcomes, sent.problem
    place = next((index for index, item in enumerate(outcomes) if item.model in sent.waiting), len(outcomes) - 1)
    shown = replace(outcomes[place], warnings=(*outcomes[place].warnings, sent.warning))
    return [*outcomes[:place], shown, *outcomes[place + 1 :]], sent.problem


def _built_model(workspace: Workspace, built: Built, outcome: Outcome) -> BuiltModel:
    name = outcome.model
    builder = workspace.builders.get(name)
    done = outcome.version is not None and outcome.status in ("new", "config", "unchanged")
    manifest = workspace.repository.manifest(name, outcome.version) if done and outcome.version is not None else None
    artifacts = {step: item for (model, step), item in built.artifacts.items() if model == name}
    base = builder.variant.of if builder and builder.variant else name
    trained = [
        item for (model, _), item in built.artifacts.items() if model in (name, base) and TRAINING_FILE in item.files
    ]
    return BuiltModel(
        name,
        outcome.status,
        [RanStep(step, item.key, KeyContent.model_validate(item.key_content)) for step, item in artifacts.items()],
        builder,
        manifest,
        read_training(trained[0].folder / "files") if trained else None,
        source_commit(builder) if builder else None,
        f"{outcome.error}" if outcome.error else outcome.reason or outcome.note,
        outcome.log,
        _labels(builder) if builder else (),
        outcome.error.measured if isinstance(outcome.error, VerifyError) else {},
        outcome.error.missed if isinstance(outcome.error, VerifyError) else (),
        outcome.build_s,
    )


def _labels(builder: Builder) -> Sequence[str]:
    """The class names of the first output that has some."""
    for index, output in enumerate(builder.spec.outputs):
        if output.labels:
            try:
                file = local_file(builder, f"outputs[{index}].labels", output.labels)
                return read_text(file).splitlines()
            except (OSError, UnicodeDecodeError, ModelwrightError):
                return ()
    return ()
