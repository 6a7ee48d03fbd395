"""A whole build: read the project, run the steps that must run, publish what was verified."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from modelwright import tools
from modelwright.build import locks, stamp
from modelwright.build.executor import Executor
from modelwright.build.listener import Listener
from modelwright.build.outcome import Outcome
from modelwright.build.release import release
from modelwright.build.scheduler import Built, Scheduler
from modelwright.build.workspace import Workspace, open_workspace
from modelwright.errors import ModelwrightError
from modelwright.fsops import locked
from modelwright.kinds.registry import kind_of
from modelwright.project.project import ProjectConfig
from modelwright.repository.moves import finish
from modelwright.repository.policy import recent, utc_now
from modelwright.steps.wheels import remove_leftovers

LOCK = "build.lock"


def build(
    project: ProjectConfig,
    names: Sequence[str],
    listener: Listener,
    *,
    jobs: int | None = None,
    wait: bool = False,
    write_locks: bool = True,
    everything: bool = False,
    start_executor: Callable[[], Executor] | None = None,
) -> list[Outcome]:
    """Build, verify and publish. One outcome a model; raises only for what concerns the whole project.

    Whatever goes wrong with one model, from its model.yaml to its publish, is that outcome's `error`.

    `jobs` bounds the threads of all steps together (default: the cores this process may use). `wait`: when another
    build runs, wait for it; otherwise that is a LockedError. A requirements.lock that is missing, or was made for
    something else, is written; without `write_locks` it fails its model. `everything`: also models that are built on
    request, of all builders or of the named ones. `start_executor` says where steps run; by default in processes.
    """
    if jobs is not None and jobs < 1:
        raise ModelwrightError(f"jobs: expected a whole number from 1, got {jobs}")
    started_ns = time.time_ns()
    tracking = _tracking(project)
    with locked(project.state / LOCK, "modelwright build", wait=wait, say=listener.waiting):
        workspace = _open(project, names, listener, write_locks, everything)
        workspace.repository.ledger()  # a damaged one is found before hours of work, not after
        workspace.store.clean()
        remove_leftovers(project.wheels)
        workspace.repository.clean()
        finish(workspace.repository)
        try:
            built = Scheduler(workspace, listener).run(start_executor or (lambda: _worker_pool(jobs)))
            outcomes = release(workspace, built)
            noted = tracking.note(workspace, built, outcomes) if tracking else []
        finally:
            workspace.fingerprints.save()
    # With the lock free: a registry may take long.
    outcomes, unrecorded = tracking.send(project, outcomes, noted, listener) if tracking else (outcomes, "")
    # Code of a plugged-in kind decides on steps, too, and where all of it lies is not known.
    built_in = all(kind_of(builder).is_built_in for builder in workspace.selected)
    # Which GPU and TensorRT a plan is for is asked of machines, which no timestamp tells.
    built_here = not any(step.where for step in workspace.steps)
    # A minute later there is something to do: to stop to serve what no pipeline needs any more.
    settled = not any(recent(state, utc_now()) for state in workspace.repository.ledger().serving.values())
    asked = [outcome for outcome in outcomes if outcome.status != "on request"]
    if built_in and built_here and settled and not unrecorded and all(_is_idle(outcome) for outcome in asked):
        stamp.write(project, stamp.asked(names, everything), len(asked), _looked_at(workspace, built), started_ns)
    return outcomes


def _tracking(project: ProjectConfig) -> ModuleType | None:
    """What records builds, where the project asks for it. Raises TrackingError where that is not installed."""
    if not project.tracking.mlflow:
        return None
    from modelwright.build import tracked

    tracked.check_installed(project)
    return tracked


def _open(
    project: ProjectConfig, names: Sequence[str], listener: Listener, write_locks: bool, everything: bool
) -> Workspace:
    """The workspace, once every requirements.lock is there that can be."""
    workspace = open_workspace(project, names, everything=everything)
    needing = locks.needing(workspace.selected, workspace.faults.errors)
    if not write_locks or not needing:
        return workspace
    failed = locks.write_needed(project, needing, listener.locking)
    if len(failed) < len(needing):
        workspace = open_workspace(project, names, everything=everything)
    for model, error in failed.items():
        workspace.faults.errors.pop(model, None)  # that its lock is missing says less than why
        workspace.faults.add(model, "lock", error)
    return workspace


def _looked_at(workspace: Workspace, built: Built) -> Iterator[Path]:
    """The files that step keys cover, and artifacts. A folder stands for its files: it changes when one goes."""
    yield from workspace.fingerprints.looked_at
    for artifact in built.artifacts.values():
        yield artifact.folder / "artifact.json"
        yield from {artifact.path(name).parent for name in artifact.files}


def _worker_pool(jobs: int | None) -> Executor:
    from modelwright.build.pool import WorkerPool

    return WorkerPool(jobs or tools.cores())


def _is_idle(outcome: Outcome) -> bool:
    return outcome.status == "unchanged" and not outcome.ran and not outcome.note
