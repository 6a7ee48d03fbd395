"""What an operator does to published versions: retire, restore, roll back, promote.

Each is planned first (`repository/moves.py`), which writes nothing; with `dry_run` that is all. Then the journal gets a
line and the repository the changes, while no build and no other operator can change it. What a server would refuse is
not done: the linter looks at the repository as it is about to be, as it does before a publish.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from modelwright.build import lint_gate
from modelwright.build.build import LOCK
from modelwright.build.faults import Faults
from modelwright.errors import LintError, RepositoryError
from modelwright.fsops import locked
from modelwright.operations.follow import follow
from modelwright.project.project import ProjectConfig
from modelwright.repository import moves
from modelwright.repository.move import Move, carry_out
from modelwright.repository.repository import Repository
from modelwright.repository.versions import with_ensembles

if TYPE_CHECKING:
    from modelwright.fleet.follow import Follower, Servers

Say = Callable[[str], Any]


@dataclass(frozen=True)
class How:
    """How an operation is done. `say` hears who holds the lock, where it waits for one."""

    why: str = ""  # goes into the journal
    dry_run: bool = False
    wait: bool = False  # for a build or another operator; otherwise LockedError
    allow_signature_change: bool = False
    say: Say = lambda holder: None
    servers: Servers | None = None  # that are to follow, or all is put back


@dataclass(frozen=True)
class Changed:
    """What an operation did or, where it is not `done`, would do.

    `serves`: the versions of each model that changes which are served from then on. `later`: those that are served once
    no server can still run what was before. `changes`: whether there is anything to do. `undo`: the command that takes
    it back.
    """

    what: str
    model: str
    version: int | None
    says: tuple[str, ...]  # what happens, a line each
    serves: Mapping[str, tuple[int, ...]]
    later: Mapping[str, tuple[int, ...]]
    changes: bool
    done: bool
    undo: str = ""
    servers: tuple[Follower, ...] = ()  # how they followed


def retire(project: ProjectConfig, model: str, version: int, how: How) -> Changed:
    """A version leaves the repository, and is kept in the history. Raises RepositoryError as `moves.retire` does."""
    undo = f"modelwright restore {model} {version}"
    return _change(project, "retire", moves.retire, (model, version), how, lambda move: undo)


def restore(project: ProjectConfig, model: str, version: int, how: How) -> Changed:
    """A retired version comes back under its number. Raises RepositoryError as `moves.restore` does."""

    def undo(move: Move) -> str:
        came_back = any(change.model == model and version in change.restore for change in move.changes)
        return f"modelwright retire {model} {version}" if came_back else ""

    return _change(project, "restore", moves.restore, (model, version), how, undo)


def rollback(project: ProjectConfig, model: str, to: int | None, how: How) -> Changed:
    """An older version is served again, and newer ones leave. Raises RepositoryError as `moves.rollback` does."""

    def undo(move: Move) -> str:
        was_promoted = move.undone_states[model].promoted is not None
        return f"modelwright {'promote' if was_promoted else 'restore'} {model} {max(move.undone_serves[model])}"

    return _change(project, "rollback", moves.rollback, (model, to), how, undo)


def promote(project: ProjectConfig, model: str, version: int | None, how: How) -> Changed:
    """One version is served, whatever is newer; None ends that. Raises RepositoryError as `moves.promote` does."""

    def undo(move: Move) -> str:
        before = move.undone_states[model].promoted
        return f"modelwright promote {model} {'latest' if before is None else before}"

    return _change(project, "promote", moves.promote, (model, version), how, undo)


def _change(
    project: ProjectConfig,
    what: str,
    plan: Callable[..., Move],
    asked: tuple[str, int | None],
    how: How,
    undo: Callable[[Move], str],
) -> Changed:
    repository = Repository.of(project)

    def planned() -> Move:
        return plan(repository, *asked, allow_signature_change=how.allow_signature_change)

    if how.dry_run:
        move = _left(repository, what, asked) or planned()
        _lint(project, move, holds_lock=False)
        _check_servers(project, repository, move, how)
        return _changed(move, undo, done=False)
    with locked(project.state / LOCK, f"modelwright {what}", wait=how.wait, say=how.say):
        repository.clean()
        left = _left(repository, what, asked)
        if left is None:
            moves.finish(repository)  # what another operator asked for
        move = left or planned()
        _lint(project, move, holds_lock=True)
        followers = _carried_out(project, repository, move, how)
    unrecorded = follow(project, move.serves)
    changed = _changed(move, undo, done=True)
    says = (*changed.says, unrecorded) if unrecorded else changed.says
    return replace(changed, says=says, servers=tuple(followers))


def _left(repository: Repository, what: str, asked: tuple[str, int | None]) -> Move | None:
    """What is left to do where the same command was ended halfway: a second rollback must not go back twice as far."""
    try:
        found = moves.unfinished(repository)
    except RepositoryError:
        return None
    model, version = asked
    if found is None or (found.event.model, found.left.what) != (model, f"{moves.FINISH}{what}"):
        return None
    same = version == found.event.version or (what == "rollback" and version is None)
    return found.left if same else None


def _carried_out(project: ProjectConfig, repository: Repository, move: Move, how: How) -> Sequence[Follower]:
    if how.servers is None:
        carry_out(repository, move, why=how.why)
        return ()
    from modelwright.fleet.follow import follow

    return follow(project, repository, move, how.servers, why=how.why)


def _check_servers(project: ProjectConfig, repository: Repository, move: Move, how: How) -> None:
    if how.servers is not None:
        from modelwright.fleet.follow import check

        check(project, repository, move, how.servers)


def _lint(project: ProjectConfig, move: Move, *, holds_lock: bool) -> None:
    """Raises LintError where a server would refuse what comes of a move. A fault of the linter itself stops no move."""
    changed = [change.model for change in move.changes]
    affected = with_ensembles(Repository.of(project), changed)
    faults = Faults(project)
    if changed:
        lint_gate.check(project, move.changes, affected, faults, so="nothing is changed", holds_lock=holds_lock)
    for error in faults.errors.values():
        if isinstance(error, LintError):
            raise error


def _changed(move: Move, undo: Callable[[Move], str], *, done: bool) -> Changed:
    changes = bool(move.changes or move.states)
    return Changed(
        what=move.what,
        model=move.model,
        version=move.version,
        says=move.says,
        serves=dict(move.serves),
        later={model: numbers for model, numbers in move.settled_serves.items() if numbers != move.serves.get(model)},
        changes=changes,
        done=done and changes,
        undo=undo(move) if changes else "",
    )
