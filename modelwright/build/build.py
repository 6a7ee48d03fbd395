"""The one loop: plan → run steps in worker processes → publish what is verified.

Who owns what: this process owns the store, the repository and every decision; a worker owns its staging folder until it
says that it is done.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from modelwright.build.plan import Planned, in_order, plan, plan_step
from modelwright.build.pool import Pool
from modelwright.build.publisher import Decision, Publisher
from modelwright.build.store import Artifact, Store
from modelwright.build.worker import Done, Failed, Job
from modelwright.config.ensembles import check_ensemble
from modelwright.config.environments import check_serving
from modelwright.config.model_config import Tensors, config_of, tensors_of
from modelwright.config.render import plain_text
from modelwright.digest import Fingerprints
from modelwright.errors import ModelwrightError, SpecError, StepError
from modelwright.fsops import locked, remove_tree
from modelwright.kinds.recipe import Recipes, payload_step, served_part
from modelwright.kinds.step import Step, StepId
from modelwright.project.family import family_of
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builders
from modelwright.project.spec import Builder, PrebuiltSource
from modelwright.repository.repository import Change, Repository
from modelwright.steps.context import ServedModel, StepContext
from modelwright.suggest import did_you_mean

LOCK = "build.lock"
Status = Literal["new", "config", "unchanged", "failed", "held"]


@dataclass(frozen=True)
class Outcome:
    """What became of one model. `held`: built, but not published, since a model that belongs with it failed."""

    model: str
    status: Status
    version: int | None = None
    size_bytes: int = 0
    max_abs_error: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    build_s: float = 0.0  # of the steps that ran; of those that made it, if none did
    ran: bool = False  # whether any step had to
    compared_with: str = ""  # of the version: "its source", "its golden samples", "itself", "nothing"
    published: tuple[int, ...] = ()  # the versions that came out under numbers of their own
    warnings: tuple[str, ...] = ()  # of the linter, for what was published
    error: ModelwrightError | None = None
    log: Path | None = None


class Listener(Protocol):
    """Who is told how a build goes."""

    def waiting(self, holder: str) -> None: ...
    def planned(self, steps: int, cached: int) -> None: ...
    def started(self, step: Step, reason: str) -> None: ...
    def finished(self, step: Step, duration_s: float) -> None: ...
    def failed(self, step: Step, error: ModelwrightError, log: Path) -> None: ...


class BugError(Exception):
    """A step failed in a way nobody foresaw: the worker's traceback is the message."""


@dataclass(frozen=True)
class Session:
    """A project that was read: its builders, and the steps they come to."""

    project: ProjectConfig
    builders: dict[str, Builder]  # the whole project's
    selected: list[Builder]
    steps: list[Step]
    fingerprints: Fingerprints
    store: Store
    repository: Repository


def open_session(project: ProjectConfig, names: Sequence[str] = ()) -> Session:
    """Read and check all that can be checked before anything runs. Raises SpecError or ConfigError."""
    builders = read_builders(project)
    fingerprints = Fingerprints(project.state / "cache" / "files.json")
    recipes = Recipes(builders, project.target, fingerprints)
    selected = [builders[name] for name in _selected(builders, names)]
    for builder in selected:
        check_serving(builder, project.target)
    for builder in selected:
        if builder.composing:
            _check_ensemble_early(builder, builders)
    steps = in_order([step for builder in selected for step in recipes.steps(builder)])
    repository = Repository(project.repository, project.staging)
    return Session(project, builders, selected, steps, fingerprints, Store(project.store), repository)


def plan_session(session: Session) -> list[Planned]:
    """What a build would run, and why; nothing is run or written."""
    return plan(session.steps, session.store, _Before(session.repository))


def build(
    project: ProjectConfig, names: Sequence[str], listener: Listener, *, jobs: int | None = None, wait: bool = False
) -> list[Outcome]:
    """Build, verify and publish. One outcome a model; raises only for what concerns the whole project.

    `jobs` bounds the threads of all steps together (default: the cores this process may use).
    """
    with locked(project.state / LOCK, "modelwright build", wait=wait, say=listener.waiting):
        session = open_session(project, names)
        session.repository.ledger()  # a damaged one is found before hours of work, not after
        session.store.clean()
        session.repository.clean()
        run = _Run(session, listener, jobs or _cores())
        try:
            run.execute()
            return run.publish()
        finally:
            session.fingerprints.save()


class _Before:
    """The payload each step was last published with: what a plan explains its reasons by."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, dict[str, Any]] = {}

    def __call__(self, step: StepId) -> dict[str, Any] | None:
        model, name = step
        if model not in self._known:
            latest = self._repository.latest(model)
            lineage = latest[1]["lineage"] if latest else []
            self._known[model] = {entry["step"]: entry["payload"] for entry in lineage}
        return self._known[model].get(name)


class _Run:
    """The state of one build."""

    def __init__(self, session: Session, listener: Listener, threads: int) -> None:
        self.session = session
        self.listener = listener
        self.threads = threads
        self.before = _Before(session.repository)
        self.artifacts: dict[StepId, Artifact] = {}
        self.errors: dict[str, ModelwrightError] = {}
        self.stopped: set[str] = set()  # models that failed, and those that wait for one that did
        self.warnings: dict[str, list[str]] = {}  # of the linter
        self.logs: dict[str, Path] = {}
        self.spent_s: dict[str, float] = {}
        self.in_flight: dict[Path, Planned] = {}
        self.ready: dict[StepId, Planned] = {}  # planned, must run, waits for room

    # --- steps --------------------------------------------------------------------------------------------------------

    def execute(self) -> None:
        """Run every step that must, as many at once as there is room for. A failed model stops; others go on."""
        waiting = self._take_cached(self.session.steps)
        self.listener.planned(len(self.session.steps), len(self.session.steps) - len(waiting))
        if not waiting:
            return
        pool = Pool(self.threads)
        try:
            while waiting or pool.running:
                waiting = self._advance(pool, waiting)
                for model, job, result in pool.results() if pool.running else ():
                    self._take_result(model, job, result)
                self._retire_idle(pool, waiting)
        finally:
            pool.close()

    def _advance(self, pool: Pool, waiting: list[Step]) -> list[Step]:
        """Take and start what can be, from the front, until the pool is full: what lies behind is not looked at."""
        left: list[Step] = []
        for index, step in enumerate(waiting):
            if pool.full:
                return left + waiting[index:]
            left += self._start_ready(pool, self._take_cached([step]))
        return left

    def _take_cached(self, steps: Iterable[Step]) -> list[Step]:
        """Take what the store has; give back what must still run or wait. Steps of failed models are dropped."""
        left = []
        for step in steps:
            if self._is_stopped(step):
                self.stopped.add(step.model)
                continue
            planned = self.ready.get(step.id) or plan_step(step, self.artifacts, self.session.store, self.before)
            if planned.status == "run":
                # Another model's step may have made the same artefact meanwhile.
                planned = self._looked_up_again(planned)
            if planned.artifact:
                self.artifacts[step.id] = planned.artifact
                self.ready.pop(step.id, None)
                continue
            if planned.status == "run":
                self.ready[step.id] = planned
            left.append(step)
        return left

    def _looked_up_again(self, planned: Planned) -> Planned:
        artifact = self.session.store.get(planned.key or "")
        if artifact is None:
            return planned
        return Planned(planned.step, "cached", "up to date", artifact, planned.payload, planned.key)

    def _is_stopped(self, step: Step) -> bool:
        models = {step.model, *(model for model, _ in step.needs.values())}
        return bool(models & (self.stopped | self.errors.keys()))

    def _start_ready(self, pool: Pool, waiting: list[Step]) -> list[Step]:
        left = []
        for step in waiting:
            planned = self.ready.get(step.id)
            busy = planned is not None and any(planned.key == other.key for other in self.in_flight.values())
            if planned is None or busy or not pool.can_take(step.model, step.threads):
                left.append(step)
            elif self._prepare(planned):
                job = Job(self._context(step), self.session.store.stage())
                self.in_flight[job.staged] = planned
                self.listener.started(step, planned.reason)
                pool.submit(step.model, job, step.threads)
                del self.ready[step.id]
        return left

    def _prepare(self, planned: Planned) -> bool:
        """Check what can only be checked now that members are built: an ensemble's wiring, by what they really are."""
        builder = self.session.builders[planned.step.model]
        if builder.spec.source.kind != "ensemble" or planned.step.name != "verify":
            return True  # a prebuilt ensemble is as it was made: the server has the say
        try:
            tensors = {name: _known(self._tensors(self.session.builders[name])) for name in builder.composing}
            check_ensemble(builder, self.session.builders, tensors, self._tensors(builder))
        except ModelwrightError as error:
            self.errors[builder.name] = error
            return False
        return True

    def _context(self, step: Step) -> StepContext:
        builders, project = self.session.builders, self.session.project
        builder = builders[step.model]
        served: list[ServedModel] = []
        if "served" in step.config:
            family = [builders[name] for name in family_of(builder, builders)]
            served = [self._served_model(member, is_tested=member is builder) for member in family]
        return StepContext(
            builder=builder,
            function=step.function,
            config=step.config,
            target=project.target,
            inputs={role: self.artifacts[need].folder / "files" for role, need in step.needs.items()},
            declared=frozenset({*step.code, *step.data}),
            server=project.server,
            served=tuple(served),
        )

    def _served_model(self, builder: Builder, *, is_tested: bool) -> ServedModel:
        """A model as a trial serves it: nothing that makes it fast, no labels; of a tested one, any version."""
        config = config_of(builder, self._tensors(builder), served_part(builder))
        made, source = self.artifacts[payload_step(builder)], builder.spec.source
        for output in config.output:
            output.ClearField("label_filename")  # a trial is asked for tensors, and has no label files
        if not isinstance(source, PrebuiltSource):
            return ServedModel(builder.name, plain_text(config), {1: made.path("version")})
        if is_tested:
            config.version_policy.all.SetInParent()
        return ServedModel(
            builder.name,
            plain_text(config),
            {number: made.path(f"versions/{number}") for number in source.versions},
            is_prebuilt=True,
            top=made.path("top") if source.files else None,
            is_complete=bool(builder.composing or (config.input and config.output)),
        )

    def _tensors(self, builder: Builder) -> Tensors:
        return tensors_of(builder, self.artifacts[payload_step(builder)].facts)

    def _take_result(self, model: str, job: Job, result: Done | Failed) -> None:
        planned = self.in_flight.pop(job.staged)
        step = planned.step
        changed = self._changed_meanwhile(step)
        if isinstance(result, Done) and changed:
            where = f"{job.context.builder.file}: {step.name}: {changed} was changed while the step ran"
            result = Failed(StepError(where, "its result would stand under the wrong key: build again"), "")
        if isinstance(result, Failed):
            self._take_failure(step, job, result)
            return
        assert planned.key is not None
        assert planned.payload is not None
        artifact = self.session.store.add(job.staged, planned.key, planned.payload, result.facts, result.duration_s)
        self.artifacts[step.id] = artifact
        self.spent_s[model] = self.spent_s.get(model, 0.0) + result.duration_s
        self.listener.finished(step, result.duration_s)

    def _changed_meanwhile(self, step: Step) -> str | None:
        """A file that the step read and that is not what its key says any more: somebody edits while we build."""
        folder = self.session.builders[step.model].folder
        for name, digest in {**step.data, **step.code}.items():
            path = folder / name
            if path.is_file() and self.session.fingerprints.file(path) != digest:
                return name
        return None

    def _take_failure(self, step: Step, job: Job, result: Failed) -> None:
        log = self.session.project.logs / step.model / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        written = job.staged / "log.txt"
        text = written.read_text(errors="replace") if written.exists() else ""
        log.write_text(f"{text}\n{result.trace}" if result.trace else text)
        remove_tree(job.staged)
        if result.error is None:
            raise BugError(f"{step.model} {step.name}: a bug in modelwright\n{result.trace}")
        self.errors[step.model] = result.error
        self.logs[step.model] = log
        self.listener.failed(step, result.error, log)

    def _retire_idle(self, pool: Pool, waiting: Iterable[Step]) -> None:
        for model in pool.idle:
            if not any(step.model == model for step in waiting):
                pool.retire(model)

    # --- publishing ---------------------------------------------------------------------------------------------------

    def publish(self) -> list[Outcome]:
        """Publish each group of models that belong together, if all of it was built; one outcome a model."""
        publisher = Publisher(self.session.project, self.session.repository, self.session.fingerprints)
        decisions = self._decisions(publisher)
        held = self._held()
        changes = self._changes(publisher, {name: item for name, item in decisions.items() if name not in held})
        self._lint(changes, held)
        held = self._held()
        wanted = [name for name in changes if name not in held]
        self.session.repository.reserve(
            (name for name in wanted if decisions[name].new_version and not decisions[name].fixed),
            fixed={name: decisions[name].fixed for name in wanted},
        )
        for name in wanted:
            self.session.repository.publish(changes[name])
        publisher.save()
        return [self._outcome(builder, decisions.get(builder.name), held) for builder in self.session.selected]

    def _decisions(self, publisher: Publisher) -> dict[str, Decision]:
        """For every model that was built: members before the ensembles that run them."""
        decisions = {}
        for builder in sorted(self.session.selected, key=lambda item: len(family_of(item, self.session.builders))):
            if (builder.name, "verify") not in self.artifacts:
                continue
            try:
                decision = publisher.decide(builder, self.artifacts)
                if decision.new_version or decision.top_copies:
                    self._check_artifacts(builder)
                decisions[builder.name] = decision
            except ModelwrightError as error:
                self.errors[builder.name] = error
        return decisions

    def _changes(self, publisher: Publisher, decisions: Mapping[str, Decision]) -> dict[str, Change]:
        """What would be published, under the numbers that are next: nobody else publishes while the lock is held."""
        ledger, changes = self.session.repository.ledger(), {}
        for name, decision in decisions.items():
            if decision.changes_anything:
                fresh = decision.new_version and not decision.fixed
                number = self.session.repository.next_number(name, ledger) if fresh else None
                changes[name] = publisher.change(decision, number, self.artifacts)
        return changes

    def _lint(self, changes: Mapping[str, Change], held: Collection[str]) -> None:
        """Nothing is published that the server would refuse: what has errors, or runs what has, fails here."""
        if not changes:
            return
        from modelwright.build import lint_gate

        families = {item.name: family_of(item, self.session.builders) for item in self.session.selected}
        affected = {name for name, family in families.items() if changes.keys() & set(family)}.difference(held)
        checked = lint_gate.check(self.session.project, list(changes.values()), affected)
        self.errors |= checked.errors
        self.warnings |= checked.warnings

    def _check_artifacts(self, builder: Builder) -> None:
        for step in (payload_step(builder), (builder.name, "verify")):
            self.session.store.check(self.artifacts[step])

    def _held(self) -> set[str]:
        """Models that must not be published: an ensemble and what it runs go out together or not at all."""
        groups: dict[str, set[str]] = {}
        for builder in self.session.selected:
            family = family_of(builder, self.session.builders)
            joined = set(family).union(*(groups.get(name, ()) for name in family))
            groups |= dict.fromkeys(joined, joined)
        unbuilt = {item.name for item in self.session.selected if (item.name, "verify") not in self.artifacts}
        bad = unbuilt | self.errors.keys()
        return {name for name, group in groups.items() if group & bad}

    def _outcome(self, builder: Builder, decision: Decision | None, held: set[str]) -> Outcome:
        name = builder.name
        spent = self.spent_s.get(name, 0.0)
        if name in self.errors:
            return Outcome(name, "failed", build_s=spent, ran=True, error=self.errors[name], log=self.logs.get(name))
        if name in held or decision is None:
            return Outcome(name, "held", build_s=spent, ran=name in self.spent_s)
        status: Status = "new" if decision.new_version else "config" if decision.changes_anything else "unchanged"
        latest = self.session.repository.latest(name)
        if latest is None:  # prebuilt, and all of it lay there before, under the same numbers
            newest = max(self.session.repository.versions(name))
            return Outcome(name, status, newest, build_s=spent, ran=name in self.spent_s, compared_with="nothing")
        version, manifest = latest
        verification = manifest["verification"]
        # A model compared with itself differs by nothing, which says nothing.
        errors = verification["max_abs_error"].values() if verification["compared_with"] != "itself" else ()
        return Outcome(
            name,
            status,
            version=version,
            compared_with=verification["compared_with"],
            published=tuple(sorted(decision.fixed)),
            size_bytes=sum(entry["size_bytes"] for entry in manifest["files"].values()),
            max_abs_error=max(errors, default=None),
            metrics=manifest["metrics"],
            build_s=spent or sum(entry["seconds"] for entry in manifest["lineage"]),
            ran=name in self.spent_s,
            warnings=tuple(self.warnings.get(name, ())),
        )


def _cores() -> int:
    """The cores this process may use, where the system says (not on macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _known(tensors: Tensors) -> Tensors | None:
    """None where neither a file nor model.yaml says yet what the tensors are, or only the server will."""
    return tensors if tensors.inputs else None


def _check_ensemble_early(builder: Builder, builders: Mapping[str, Builder]) -> None:
    """Check the wiring by what the model.yaml files declare, before anything is built."""
    family_of(builder, builders)
    prebuilt = isinstance(builder.spec.source, PrebuiltSource)
    for name in builder.composing:
        if name not in builders:
            field = "serving.ensemble_scheduling.step" if prebuilt else "source.steps"
            where = f"{builder.file}: {field}: model_name '{name}' is no model of this project"
            hint = did_you_mean(name, builders)
            raise SpecError(where, f"adopt it too, or {hint}" if prebuilt else hint)
    if prebuilt:
        return
    declared = {name: _known(tensors_of(builders[name], {})) for name in builder.composing}
    check_ensemble(builder, builders, declared, tensors_of(builder, {}))
