"""A move: what an operator does to published versions, as it was planned; how it is carried out, settled, undone.

A move is a few changes, each of them one rename after the other, in an order in which a server may look at any moment:
models that a pipeline runs serve the old and the new versions before the pipeline's config names the new ones, and drop
the old ones after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modelwright.facts.part import JsonObject
from modelwright.repository.ledger import ServingState
from modelwright.repository.recorded import plain_digests, record, top_digests
from modelwright.repository.repository import Change, Repository


@dataclass(frozen=True)
class Move:
    """A change to what is served, as it was planned. `changes` come first, in order, then, later, `settling`."""

    what: str  # "rollback", …
    model: str
    version: int | None
    changes: tuple[Change, ...]
    states: Mapping[str, ServingState]  # of the ledger, from before the changes on
    serves: Mapping[str, tuple[int, ...]]  # of each model that changes: what is served after the changes
    says: tuple[str, ...]  # what happens, a line each
    settling: tuple[Change, ...] = ()
    settled_states: Mapping[str, ServingState] = field(default_factory=dict)
    settled_serves: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    undoing: tuple[Change, ...] = ()
    undone_states: Mapping[str, ServingState] = field(default_factory=dict)
    undone_serves: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def changes_anything(self) -> bool:
        return bool(self.changes or self.settling)


def inverse(move: Move) -> Move:
    """The move back to what was there before."""
    return Move(
        what=f"undo {move.what}",
        model=move.model,
        version=move.version,
        changes=move.undoing,
        states=move.undone_states,
        serves=move.undone_serves,
        says=tuple(f"{model} {served_text(numbers)} again" for model, numbers in move.undone_serves.items()),
    )


def carry_out(repository: Repository, move: Move, *, why: str = "", details: JsonObject | None = None) -> None:
    """Write the move into the journal, then make its changes. Only for the holder of the build lock.

    Raises RepositoryError or StoreError. What was done until then is a state that a server can load, and the same move
    can be planned again.
    """
    if not move.changes_anything and not move.states:
        return
    if any(change.retire or change.restore for change in move.changes):
        repository.check_one_filesystem()
    if not repository.journal.file.exists():
        record(repository, why="the journal begins")
    told: JsonObject = {"serves": {model: [*numbers] for model, numbers in move.serves.items()}, **(details or {})}
    told["live"] = [*repository.versions(move.model)]
    told |= _digests(move.changes)
    repository.journal.append(move.what, move.model, move.version, why=why, details=told)
    repository.reserve(states=move.states)
    for change in move.changes:
        repository.publish(change)


def settle(repository: Repository, move: Move) -> None:
    """Stop to serve what only servers still ran that had not followed. Only for the holder of the build lock."""
    if move.settling:
        repository.journal.append("settle", move.model, move.version, details=_digests(move.settling))
        repository.reserve(states=move.settled_states)
        for change in move.settling:
            repository.publish(change)


def _digests(changes: Iterable[Change]) -> JsonObject:
    """{model: {top file: SHA-256}} of what changes write, and of configs without the versions that they serve: `fsck`
    finds a file that changed since."""
    writing = [change for change in changes if change.top_names]
    if not writing:
        return {}
    return {
        "top": {change.model: {**top_digests(change)} for change in writing},
        "plain": {change.model: {**plain_digests(change)} for change in writing},
    }


def served_text(numbers: Sequence[int]) -> str:
    return f"serves {numbers_text(numbers)}"


def numbers_text(numbers: Sequence[int]) -> str:
    if not numbers:
        return "nothing"
    return f"version{'s' * (len(numbers) > 1)} {' and '.join(map(str, sorted(numbers)))}"
