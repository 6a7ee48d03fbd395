"""`rollout`: a version goes live on one server first. What that takes is in `fleet/`; here is the lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from modelwright.build.build import LOCK
from modelwright.fleet import rollout as rollouts
from modelwright.fleet.follow import Terms
from modelwright.fleet.rollout import Canary, RolledOut, RolloutPlan
from modelwright.fleet.watcher import Watcher
from modelwright.fsops import locked
from modelwright.operations.follow import follow
from modelwright.project.project import ProjectConfig
from modelwright.repository.repository import Repository


@dataclass(frozen=True)
class RolloutSettings:
    """How a rollout is done. `say` hears who holds the lock, where it waits for one."""

    why: str = ""  # goes into the journal
    wait: bool = False  # for a build or another operator; otherwise LockedError
    terms: Terms = field(default_factory=Terms)
    say: Callable[[str], Any] = lambda holder: None


def plan(project: ProjectConfig, asked: Canary, settings: RolloutSettings) -> RolloutPlan:
    """What a rollout would do. The servers are asked, and nothing changes. Raises as `rollout` does."""
    return rollouts.plan_rollout(project, Repository.of(project), asked, settings.terms)


def rollout(project: ProjectConfig, asked: Canary, settings: RolloutSettings, watcher: Watcher) -> RolledOut:
    """Try a version on the canary, and then have all servers serve it. No build and no other operator works meanwhile.

    Raises ServerError or RepositoryError before anything has changed, FleetError where a server did not follow.
    """
    with locked(project.state / LOCK, "modelwright rollout", wait=settings.wait, say=settings.say):
        repository = Repository.of(project)
        repository.clean()
        done = rollouts.rollout(project, repository, asked, terms=settings.terms, watcher=watcher, why=settings.why)
    unrecorded = follow(project, [done.model])
    return replace(done, unrecorded=unrecorded)
