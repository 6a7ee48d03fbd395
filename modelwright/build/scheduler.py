"""Runs the steps that must run, as many at once as the executor has room for: steps, store, executor → `Built`.

The scheduler owns every decision; a job owns its staging folder until the executor says that it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from modelwright import extras
from modelwright.build.contexts import Contexts, checkpoints_of
from modelwright.build.executor import Done, Executor, Failed, Job
from modelwright.build.listener import Listener
from modelwright.build.plan import Planned, plan_step
from modelwright.build.store import Artifact
from modelwright.build.workspace import LastPublished, Workspace
from modelwright.errors import DiskFullError, ModelwrightError, StepError
from modelwright.fsops import remove_tree
from modelwright.kinds.step import Step, StepId


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
        self._faults = workspace.faults
        self.built = Built(errors=self._faults.errors, logs=self._faults.logs)
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
        """Run every step that must. A model that fails stops, for whatever reason; the others go on.

        No executor starts when all is cached. Raises what concerns all models: DiskFullError, and a ModelwrightError
        where the extra is not installed that every build needs.
        """
        steps = self._workspace.steps
        waiting = self._take_cached(steps)
        if waiting:
            extras.require("a build", "build")
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
            planned = None
            with self._fault_of(step):
                planned = self._planned(step)
            if planned is None:
                continue
            if planned.artifact:
                self.built.artifacts[step.id] = planned.artifact
                self._ready.pop(step.id, None)
                continue
            if planned.status == "run":
                self._ready[step.id] = planned
            left.append(step)
        return left

    @contextmanager
    def _fault_of(self, step: Step) -> Iterator[None]:
        """What goes wrong in the block fails the step's model, and the listener hears of it."""
        with self._faults.of(step.model, step.name):
            yield
        if step.model in self._faults.errors:
            self._tell_failure(step)

    def _tell_failure(self, step: Step) -> None:
        log = self._faults.logs.get(step.model, self._faults.log(step.model, step.name))
        self._listener.failed(step, self._faults.errors[step.model], log)

    def _planned(self, step: Step) -> Planned:
        planned = self._ready.get(step.id) or plan_step(step, self.built.artifacts, self._store, self._before)
        # Another model's step may have made the same artifact meanwhile.
        return self._looked_up_again(planned) if planned.status == "run" else planned

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
            job = None
            with self._fault_of(step):
                job = Job(self._contexts.of(step, planned.key or ""), self._store.stage(), step.threads)
            if job is None:
                continue
            self._in_flight[job.staged] = planned
            self._started.add(step.model)
            self._listener.started(step, planned.reason)
            with self._fault_of(step):
                executor.submit(job, partial(self._listener.progress, step))
            if step.model in self._faults.errors:
                del self._in_flight[job.staged]
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
        if isinstance(result, Failed):
            self._take_failure(step, job, result)
            return
        with self._fault_of(step):
            self._keep(planned, job, result)
        if step.id in self.built.artifacts:
            self._listener.finished(step, result.duration_s)
        else:
            remove_tree(job.staged)

    def _keep(self, planned: Planned, job: Job, done: Done) -> None:
        """Move what a step made into the store. Raises StepError where it would stand under the wrong key."""
        step = planned.step
        changed = self._changed_meanwhile(step)
        if changed:
            where = f"{job.context.builder.file}: {step.name}: {changed} was changed while the step ran"
            raise StepError(where, "its result would stand under the wrong key: build again")
        assert planned.key is not None
        assert planned.key_content is not None
        artifact = self._store.add(job.staged, planned.key, planned.key_content, done.facts, done.duration_s)
        remove_tree(checkpoints_of(self._workspace.project.state, planned.key))
        self.built.artifacts[step.id] = artifact
        self.built.spent_s[step.model] = self.built.spent_s.get(step.model, 0.0) + done.duration_s

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
        written = job.staged / "log.txt"
        text = written.read_text(encoding="utf-8", errors="replace") if written.exists() else ""
        remove_tree(job.staged)
        if isinstance(result.error, DiskFullError):
            raise result.error
        if result.error is None:
            problem = result.problem or result.trace.rstrip().rpartition("\n")[2]
            self._faults.add_bug(step.model, step.name, problem, result.trace, text)
        else:
            self._faults.write_log(step.model, step.name, text, result.trace)
            self._faults.errors.setdefault(step.model, result.error)
        self._tell_failure(step)
