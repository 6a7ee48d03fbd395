"""`gc`: old versions leave the repository, and retired ones are deleted.

A version is not deleted at once: it leaves the repository, rests among the retired ones, and a later `gc` deletes it.
Of each model the newest `keep` live versions stay, and the newest `keep` retired ones. Also stays what is served,
promoted or needed by a pipeline, what a remote has, what a version that stays was verified with, and what was not made
here or cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from modelwright.build.build import LOCK
from modelwright.errors import RepositoryError
from modelwright.fsops import locked
from modelwright.operations.change import How
from modelwright.operations.places import Place, VersionPlace, places, served_versions
from modelwright.project.project import ProjectConfig
from modelwright.remotes.record import copies
from modelwright.repository import moves, pins
from modelwright.repository.ledger import ServingState
from modelwright.repository.manifest import Manifest, read_ours
from modelwright.repository.move import Move, carry_out
from modelwright.repository.records import remove_record
from modelwright.repository.repository import Repository
from modelwright.triton.layout import MANIFEST


@dataclass(frozen=True)
class Old:
    """A version beyond the newest ones. `why` it stays; empty for one that goes."""

    model: str
    version: int
    place: Place
    size_bytes: int
    digest: str = ""
    why: str = ""


@dataclass(frozen=True)
class Collected:
    """What `gc` did or, where it is not `done`, would do."""

    retired: tuple[Old, ...]  # they leave the repository
    deleted: tuple[Old, ...]  # they were retired before
    stays: tuple[Old, ...]
    tidied: tuple[str, ...]  # what is served no longer, since no pipeline needs it: a line each
    done: bool

    @property
    def freed_bytes(self) -> int:
        return sum(item.size_bytes for item in self.deleted)


def gc(project: ProjectConfig, keep: int, names: Sequence[str], how: How) -> Collected:
    """Remove old versions of the named models, or of all. Raises RepositoryError for an unknown name.

    A kill leaves each version where it was or where it is to be, and the next `gc` goes on.
    """
    if keep < 0:
        raise RepositoryError(f"keep: expected a whole number from 0, got {keep}")
    repository = Repository.of(project)
    models = list(dict.fromkeys(names)) or repository.known_models()
    for name in models:
        places(repository, name)  # raises for an unknown one
    if how.dry_run:
        return _planned(repository, keep, models, names)[1]
    with locked(project.state / LOCK, "modelwright gc", wait=how.wait, say=how.say):
        repository.clean()
        moves.finish(repository)
        tidy, found = _planned(repository, keep, models, names)
        why = how.why or "gc"
        carry_out(repository, tidy, why=why)
        for item in found.retired:
            carry_out(repository, moves.retire(repository, item.model, item.version), why=why)
        for item in found.deleted:
            repository.journal.append(
                "delete", item.model, item.version, why=why, details={"version_digest": item.digest}
            )
            repository.remove_retired(item.model, item.version)
            remove_record(repository.history, item.model, item.version)
        repository.reserve()  # the ledger knows the journal's last line
    return replace(found, done=True)


def _planned(repository: Repository, keep: int, models: Sequence[str], names: Sequence[str]) -> tuple[Move, Collected]:
    """What is served no longer, and what then goes."""
    tidy = moves.tidy(repository, names)
    old = _old(repository, keep, models, tidy.serves)
    going = [item for item in old if not item.why]
    return tidy, Collected(
        retired=tuple(item for item in going if item.place == "live"),
        deleted=tuple(item for item in going if item.place == "retired"),
        stays=tuple(item for item in old if item.why),
        tidied=tidy.says,
        done=False,
    )


def _old(repository: Repository, keep: int, models: Sequence[str], serves: Mapping[str, Sequence[int]]) -> list[Old]:
    """The versions of these models beyond the newest `keep` of each place, with the reasons of those that stay.

    `serves` are the versions that some models serve from then on; the others serve what their configs say.
    """
    known = {model: places(repository, model) for model in repository.known_models()}
    needed, remotes = pins.needed(repository), copies(repository.history)
    old: dict[tuple[str, int], Old] = {}
    for model in models:
        served, unread = served_versions(repository, model)
        served = list(serves.get(model, served))
        try:
            repository.latest(model)
        except RepositoryError as error:
            unread = error.message
        for item in _beyond(known[model], keep):
            manifest, problem = _manifest(item)
            found = Old(model, item.version, item.place, item.size_bytes, manifest.version_digest if manifest else "")
            urls = [copy.url for copy in remotes.get((model, item.version), ())]
            why = unread or problem or (f"on {' and '.join(urls)}" if urls else "")
            if item.place == "live":
                state = repository.ledger().state(model)
                why = _why_live(item.version, served, state, needed.get(model, {}).get(item.version, ())) or why
            old[model, item.version] = replace(found, why=why)
    _keep_what_others_need(repository, known, old)
    return list(old.values())


def _beyond(versions: Mapping[int, VersionPlace], keep: int) -> list[VersionPlace]:
    found = []
    for place in ("live", "retired"):
        own = [item for item in versions.values() if item.place == place]
        found += own[: max(len(own) - keep, 0)]
    return found


def _manifest(item: VersionPlace) -> tuple[Manifest | None, str]:
    """A version's manifest, or why there is none."""
    try:
        manifest = read_ours(item.folder / MANIFEST)
    except RepositoryError as error:
        return None, f"cannot be read: {error.message}"
    if manifest is None or manifest.made.prebuilt:
        return manifest, "not made here"
    return manifest, ""


def _why_live(version: int, served: Collection[int], state: ServingState, pipelines: Sequence[str]) -> str:
    """What keeps a version in the repository; "" for nothing."""
    if pipelines:
        return f"needed by {' and '.join(pipelines)}"
    return "promoted" if version == state.promoted else "served" if version in served else ""


def _keep_what_others_need(
    repository: Repository, known: Mapping[str, Mapping[int, VersionPlace]], old: dict[tuple[str, int], Old]
) -> None:
    """A version of a pipeline can only come back with the versions that it was verified with: they stay as long as it.

    What stays for that may be a pipeline's version itself, so this goes on until nothing more stays.
    """
    stays = [(model, item) for model, items in known.items() for item in items.values()]
    stays = [(model, item) for model, item in stays if (model, item.version) not in old or old[model, item.version].why]
    while stays:
        pipeline, item = stays.pop()
        manifest, _ = _manifest(item)
        for model, digest in manifest.made.composing_models.items() if manifest else ():
            number = _number_of(repository, model, digest)
            if number is not None and (found := old.get((model, number))) is not None and not found.why:
                old[model, number] = replace(found, why=f"{pipeline} version {item.version} was verified with it")
                stays.append((model, known[model][number]))


def _number_of(repository: Repository, model: str, digest: str) -> int | None:
    try:
        return pins.number_of(repository, model, digest)
    except RepositoryError:  # it is gone
        return None
