"""What an operator does to published versions: `retire`, `restore`, `rollback`, `promote`. Planned first, then done.

    move = rollback(repository, "digits")      nothing is written: `move.says` tells what will happen
    carry_out(repository, move, why="accuracy fell")
    settle(repository, move)                   once the servers have followed, or a minute later by any other move

What a kill or a full disk left halfway is finished by the next command: `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from modelwright.errors import ConfigError, RepositoryError
from modelwright.repository.draft import Draft, which_versions
from modelwright.repository.journal import Event
from modelwright.repository.move import Move, carry_out
from modelwright.repository.repository import Repository
from modelwright.repository.versions import check_known, published_config
from modelwright.triton.layout import CONFIG

# --- the moves --------------------------------------------------------------------------------------------------------


def retire(repository: Repository, model: str, version: int, *, allow_signature_change: bool = False) -> Move:
    """A version leaves the repository and is kept among the retired ones.

    Raises RepositoryError for one that a pipeline needs, that is promoted, or that is the last one.
    """
    draft = Draft(repository)
    _check_live(repository, model, version)
    users = draft.needed.get(model, {}).get(version, ())
    if users:
        pipelines = " and ".join(users)
        hint = f"roll {users[0]} back, or build it with another version, and then retire this one"
        raise RepositoryError(f"{model}: version {version} is needed by {pipelines}", hint)
    state = draft.state(model)
    if state.promoted == version:
        hint = f"promote another one first: modelwright promote {model} latest"
        raise RepositoryError(f"{model}: version {version} is the promoted one", hint)
    rest = [number for number in repository.versions(model) if number != version]
    if not rest:
        raise RepositoryError(
            f"{model}: version {version} is its only one", "a model without versions does not load: remove its folder"
        )
    draft.leave(model, [version])
    if version > max(rest):
        draft.withdraw(model, [version])
    return draft.move("retire", model, version, allow_signature_change)


def restore(repository: Repository, model: str, version: int, *, allow_signature_change: bool = False) -> Move:
    """A retired version comes back, under its number. One that was withdrawn, then deleted, cannot: but builds may then
    publish its content again. Raises RepositoryError for one that is not retired."""
    draft = Draft(repository)
    check_known(repository, model)
    if version not in repository.retired(model):
        if version in draft.state(model).withdrawn and version not in repository.versions(model):
            draft.allow_again(model, version)
            return draft.move("restore", model, version, allow_signature_change)
        live = version in repository.versions(model)
        problem = "is in the repository already" if live else "is not among the retired ones"
        raise RepositoryError(f"{model}: version {version} {problem}", which_versions(repository, model))
    draft.come_back(model, [version])
    return draft.move("restore", model, version, allow_signature_change)


def rollback(
    repository: Repository, model: str, to: int | None = None, *, allow_signature_change: bool = False
) -> Move:
    """An older version is served again, and the newer ones leave the repository. A pipeline takes the versions along
    that it was verified with. Without `to`: the highest version below the one that is served now.

    Raises RepositoryError where there is no such version, or a newer one is needed by another pipeline.
    """
    draft = Draft(repository)
    check_known(repository, model)
    now = draft.newest_served(model)
    live, retired = repository.versions(model), repository.retired(model)
    withdrawn = draft.state(model).withdrawn
    older = [number for number in {*live, *retired} if (now is None or number < now) and number not in withdrawn]
    if to is None:
        if not older:
            problem = f"there is no version below {now}" if now is not None else "nothing is served"
            raise RepositoryError(f"{model}: {problem}", which_versions(repository, model))
        to = max(older)
    if to not in live and to not in retired:
        raise RepositoryError(f"{model}: there is no version {to}", which_versions(repository, model))
    if now is not None and (to > now or (to == now and not draft.is_unfinished(model))):
        hint = "a rollback goes to an older one; restore or promote goes forward"
        problem = f"version {to} is served" if to == now else f"version {now} is served, and version {to} is newer"
        raise RepositoryError(f"{model}: {problem}", hint)
    if to in retired:
        draft.come_back(model, [to])
    state = draft.state(model)
    if state.promoted is not None:  # newer versions are there and not served: only the one that was served leaves
        draft.set_state(model, state.model_copy(update={"promoted": to}))
        leaving = [number for number in live if to < number <= state.promoted]
    else:
        leaving = [number for number in live if number > to]
    for number in leaving:
        users = [user for user in draft.needed.get(model, {}).get(number, ()) if user != model]
        if users:
            has_older = any(known < (draft.newest_served(users[0]) or 0) for known in repository.versions(users[0]))
            hint = f"roll {users[0]} back first: modelwright rollback {users[0]}"
            if not has_older:
                hint = f"{users[0]} has no older version: build it with another version of {model} first"
            raise RepositoryError(f"{model}: version {number} is needed by {' and '.join(users)}", hint)
    draft.withdraw(model, leaving)
    draft.leave(model, leaving)
    return draft.move("rollback", model, to, allow_signature_change)


def promote(repository: Repository, model: str, version: int | None, *, allow_signature_change: bool = False) -> Move:
    """This version is served, whatever is newer, until another one is promoted; None: what its model.yaml says again.

    Later builds publish their versions and leave them unserved. A retired version comes back. Raises RepositoryError
    for a version that does not exist, and where a pipeline needs a higher one.
    """
    draft = Draft(repository)
    check_known(repository, model)
    if version is not None:
        if version in repository.retired(model):
            draft.come_back(model, [version])
        else:
            _check_live(repository, model, version)
    draft.set_state(model, draft.state(model).model_copy(update={"promoted": version}))
    return draft.move("promote", model, version, allow_signature_change)


def tidy(repository: Repository, models: Iterable[str] = (), *, now: datetime | None = None) -> Move:
    """Bring each config.pbtxt to what its state and the pipelines ask for: above all, versions that pipelines needed a
    while ago are served no longer. `now`: or as it was to be at that time. Where none are named, models that cannot be
    read are passed over."""
    draft = Draft(repository, now)
    for model in list(models) or [name for name in repository.models() if _reads(repository, name)]:
        if (repository.root / model / CONFIG).is_file():
            draft.touch(model)
    return draft.move("tidy", "", None, allow_signature_change=True)


# --- what was not carried out to its end ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unfinished:
    """The last event of the journal, where a kill or a full disk ended its move halfway, and what is left to do."""

    event: Event
    left: Move


def unfinished(repository: Repository) -> Unfinished | None:
    """The ledger was written before the changes, so it tells what they were to lead to.

    Raises RepositoryError where that cannot be reached any more.
    """
    event = repository.journal.last()
    what = event.what.removeprefix(FINISH) if event else ""
    if event is None or what not in _LEFT or event.model not in repository.models():
        return None
    left = _LEFT[what](repository, event.model, event.version)
    if left is None:  # every version is where it is to be: are the configs as they were to be then?
        left = tidy(repository, [event.model], now=event.time)
    if not left.changes:
        return None
    return Unfinished(event, replace(left, what=f"{FINISH}{what}", model=event.model, version=event.version))


def finish(repository: Repository) -> Move | None:
    """Carry out what is left of the last move; None where nothing is, or where it cannot be.

    Only for the holder of the build lock, which can be the next command of any kind.
    """
    try:
        found = unfinished(repository)
    except RepositoryError:
        return None
    if found is None:
        return None
    carry_out(repository, found.left, why=found.event.why)
    return found.left


def _rollback_left(repository: Repository, model: str, to: int | None) -> Move | None:
    withdrawn = repository.ledger().state(model).withdrawn
    if not withdrawn.keys() & set(repository.versions(model)):
        return None
    return rollback(repository, model, to, allow_signature_change=True)


def _retire_left(repository: Repository, model: str, version: int | None) -> Move | None:
    if version is None or version not in repository.versions(model):
        return None
    return retire(repository, model, version, allow_signature_change=True)


def _restore_left(repository: Repository, model: str, version: int | None) -> Move | None:
    if version is None or version not in repository.retired(model):
        return None
    return restore(repository, model, version, allow_signature_change=True)


def _promote_left(repository: Repository, model: str, version: int | None) -> Move | None:
    if repository.ledger().state(model).promoted == version and version not in repository.retired(model):
        return None
    return promote(repository, model, version, allow_signature_change=True)


FINISH = "finish "  # what the journal calls it
_LEFT: Mapping[str, Callable[[Repository, str, int | None], Move | None]] = {
    "rollback": _rollback_left,
    "retire": _retire_left,
    "restore": _restore_left,
    "promote": _promote_left,
}


def _reads(repository: Repository, model: str) -> bool:
    try:
        published_config(repository, model)
        repository.latest(model)
    except (ConfigError, RepositoryError):
        return False
    return True


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_live(repository: Repository, model: str, version: int) -> None:
    check_known(repository, model)
    if version not in repository.versions(model):
        retired = version in repository.retired(model)
        problem = "is retired" if retired else "does not exist"
        hint = f"bring it back: modelwright restore {model} {version}" if retired else which_versions(repository, model)
        raise RepositoryError(f"{model}: version {version} {problem}", hint)
