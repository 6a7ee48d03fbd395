"""Draw what a builder's augmentation does to its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from modelwright.build.contexts import Contexts
from modelwright.build.executor import Executor, Failed, Job
from modelwright.build.pool import WorkerPool
from modelwright.build.workspace import Workspace, open_workspace
from modelwright.errors import BugError, SpecError
from modelwright.fsops import disk_errors, remove_tree
from modelwright.kinds.registry import kind_of
from modelwright.kinds.step import StepFunction
from modelwright.project.project import ProjectConfig
from modelwright.project.spec import Builder
from modelwright.steps.preview import PICTURE
from modelwright.variants.model_steps import check_entry

_FUNCTION = StepFunction("preview", "modelwright.steps.preview:run")
_AUGMENT = "augment"


@dataclass(frozen=True)
class Preview:
    """A picture of augmented samples."""

    model: str
    file: Path
    augment: str  # module:function that was called


def preview(
    project: ProjectConfig,
    name: str,
    output: Path | None = None,
    augment: str | None = None,
    start_executor: Callable[[], Executor] = lambda: WorkerPool(1),
) -> Preview:
    """Draw a grid of golden samples and what `augment` makes of them: a function that takes and returns a batch.

    It is `augment` of the module of source.entry unless given, and runs in a worker process. The picture is
    `output`, by default `.modelwright/previews/NAME.png`. Raises SpecError for a model without such a function,
    StepError for one that does not work.
    """
    workspace = open_workspace(project, [name])
    if name in workspace.faults.errors:
        raise workspace.faults.errors[name]
    builder = workspace.builders[name]
    entry = augment or _entry_of(builder)
    check_entry(builder, workspace.fingerprints, _AUGMENT, entry)
    file = output or project.state / "previews" / f"{name}.png"
    job = _job(workspace, builder, entry)
    try:
        _run(job, start_executor())
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes((job.staged / "files" / PICTURE).read_bytes())
    finally:
        remove_tree(job.staged)
    return Preview(name, file, entry)


def _entry_of(builder: Builder) -> str:
    trained = builder.spec.source.entries().get("entry")
    if not kind_of(builder).training_step or trained is None or builder.spec.samples is None:
        where = f"{builder.file}: source.kind {kind_of(builder).name} trains nothing"
        raise SpecError(where, "preview is for models of kind torch")
    return f"{trained.partition(':')[0]}:{_AUGMENT}"


def _job(workspace: Workspace, builder: Builder, entry: str) -> Job:
    """The step that draws, in the place of the one that trains."""
    steps = {step.name: step for step in workspace.steps if step.model == builder.name}
    trained, samples = steps[kind_of(builder).training_step], steps["samples"]
    step = replace(trained, needs={}, code={**trained.code, **samples.code}, data={**trained.data, **samples.data})
    context = replace(
        Contexts(workspace, {}).of(step),
        function=_FUNCTION,
        config={"augment": entry, "samples": builder.spec.samples},
        step=_FUNCTION.name,
    )
    return Job(context, workspace.store.stage())


def _run(job: Job, executor: Executor) -> None:
    try:
        executor.submit(job, lambda text: None)
        while not (ended := executor.results()):
            pass
    finally:
        executor.close()
    result = ended[0][1]
    if isinstance(result, Failed):
        if result.error is not None:
            raise result.error
        raise BugError(f"{job.model}: preview: {result.problem}", result.trace)
