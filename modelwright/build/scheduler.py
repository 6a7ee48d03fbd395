"""Runs the steps that must run, as many at once as the executor has room for: steps, store, executor → `Built`.

The scheduler owns every decision; a job owns its staging folder until the executor says that it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.build.contexts import Contexts
from modelwright.build.executor import Done, Executor, Failed, Job
from modelwright.build.listener import Listener
from modelwright.build.plan import Planned, plan_step
from modelwright.build.store import Artifact
from modelwright.build.workspace import LastPublished, Workspace
from modelwright.errors import ModelwrightError, StepError
from modelwright.fsops import remove_tree
from modelwright.kinds.step import Step, StepId


class BugError(Exception):
    """A step raised what no step should: the worker's traceback is the message."""


@dataclass
class Built:
    """What the steps of a build made, and what went wrong. Artifacts are there for every step that succeeded."""

    artifacts: dict[StepId, Artifact] = field(default_factory=dict)
    errors: dict[str, ModelwrightError] = field(default_factory=dict)  # by model
    logs: dict[str, Path] = field(default_factory=dict)  # of failed models
    spent_s: dict[str, float] = field(default_factory=dict)  # by model, of the steps that ran


class Scheduler:
    """One run over the steps of a workspace."""

    def __init__(self, workspace: Workspace, listener: Listener) -> None:
        self.built = Built()
        self._workspace = workspace
        self._store = workspace.store
        self._listener = listener
        self._before = LastPublished(workspace.repository)
        self._contexts = Contexts(workspace, self.built.artifacts)
        self._stopped: set[str] = set()  # models that failed, and those that wait for one that did
        self._started: set[str] = set()  # models that the executor may keep something for
        self._in_flight: dict[Path, Planned] = {}
        self._ready: dict[StepId, Planned] = {}  # planned, must run, waits for room

    def run(self, start_executor: Callable[[], Executor]) -> Built:
        """Run every step that must. A model that fails stops; the others go on. No executor starts when all is cached.

        Raises BugError when a step fails in a way that no user can act on.
        """
        steps = self._workspace.steps
        waiting = self._take_cached(steps)
        self._listener.planned(len(steps), len(steps) - len(waiting))
        if not waiting:
            return self.built
        executor = start_executor()
        try:
            while waiting or self._in_flight:
                waiting = self._advance(executor, waiting)
                for job, result in executor.results() if self._in_flight else ():
                    self._take_result(job, result)
                self._retire_idle(executor, waiting)
        finally:
            executor.close()
        return self.built

    def _retire_idle(self, executor: Executor, waiting: list[Step]) -> None:
        """Tell the executor of builders that are done, while others still run."""
        running = {planned.step.model for planned in self._in_flight.values()}
        for model in self._started - running:
            if not any(step.model == model for step in waiting):
                executor.retire(model)
                self._started.remove(model)

    def _advance(self, executor: Executor, waiting: list[Step]) -> list[Step]:
        """Take and start what can be, from the front, until there is no room: what lies behind is not looked at."""
        left: list[Step] = []
        for index, step in enumerate(waiting):
            if executor.capacity() < 1:
                return left + waiting[index:]
            left += self._start_ready(executor, self._take_cached([step]))
        return left

    def _take_cached(self, steps: Iterable[Step]) -> list[Step]:
        """Take what the store has; return what must still run or wait. Steps of failed models are dropped."""
        left = []
        for step in steps:
            if self._is_stopped(step):
                self._stopped.add(step.model)
                continue
            planned = self._ready.get(step.id) or plan_step(step, self.built.artifacts, self._store, self._before)
            if planned.status == "run":
                # Another model's step may have made the same artifact meanwhile.
                planned = self._looked_up_again(planned)
            if planned.artifact:
                self.built.artifacts[step.id] = planned.artifact
                self._ready.pop(step.id, None)
                continue
            if planned.status == "run":
                self._ready[step.id] = planned
            left.append(step)
        return left

    def _looked_up_again(self, planned: Planned) -> Planned:
        artifact = self._store.get(planned.key or "")
        if artifact is None:
            return planned
        return Planned(planned.step, "cached", "up to date", artifact, planned.key_content, planned.key)

    def _is_stopped(self, step: Step) -> bool:
        models = {step.model, *(model for model, _ in step.needs.values())}
        return bool(models & (self._stopped | self.built.errors.keys()))

    def _start_ready(self, executor: Executor, waiting: list[Step]) -> list[Step]:
        left = []
        for step in waiting:
            planned = self._ready.get(step.id)
            if planned is None or not self._can_start(executor, planned):
                left.append(step)
                continue
            del self._ready[step.id]
            try:
                context = self._contexts.of(step)
            except ModelwrightError as error:
                self.built.errors[step.model] = error
                continue
            job = Job(context, self._store.stage(), step.threads)
            self._in_flight[job.staged] = planned
            self._started.add(step.model)
            self._listener.started(step, planned.reason)
            executor.submit(job)
        return left

    def _can_start(self, executor: Executor, planned: Planned) -> bool:
        """One step of a builder at a time, and no key twice. A step wider than the executor runs alone."""
        running = self._in_flight.values()
        if any(planned.step.model == other.step.model or planned.key == other.key for other in running):
            return False
        return not running or planned.step.threads <= executor.capacity()

    def _take_result(self, job: Job, result: Done | Failed) -> None:
        planned = self._in_flight.pop(job.staged)
        step = planned.step
        changed = self._changed_meanwhile(step)
        if isinstance(result, Done) and changed:
            where = f"{job.context.builder.file}: {step.name}: {changed} was changed while the step ran"
            result = Failed(StepError(where, "its result would stand under the wrong key: build again"), "")
        if isinstance(result, Failed):
            self._take_failure(step, job, result)
            return
        assert planned.key is not None
        assert planned.key_content is not None
        artifact = self._store.add(job.staged, planned.key, planned.key_content, result.facts, result.duration_s)
        self.built.artifacts[step.id] = artifact
        self.built.spent_s[step.model] = self.built.spent_s.get(step.model, 0.0) + result.duration_s
        self._listener.finished(step, result.duration_s)

    def _changed_meanwhile(self, step: Step) -> str | None:
        """A file that the step read and that is not what its key says any more: somebody edits while we build."""
        folder = self._workspace.builders[step.model].folder
        files: Mapping[str, str] = {**step.data, **step.code}
        for name, digest in files.items():
            path = folder / name
            if path.is_file() and self._workspace.fingerprints.file(path) != digest:
                return name
        return None

    def _take_failure(self, step: Step, job: Job, result: Failed) -> None:
        log = self._workspace.project.logs / step.model / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        written = job.staged / "log.txt"
        text = written.read_text(errors="replace") if written.exists() else ""
        log.write_text(f"{text}\n{result.trace}" if result.trace else text)
        remove_tree(job.staged)
        if result.error is None:
            raise BugError(f"{step.model} {step.name}: a bug in modelwright\n{result.trace}")
        self.built.errors[step.model] = result.error
        self.built.logs[step.model] = log
        self._listener.failed(step, result.error, log)
