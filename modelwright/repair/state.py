"""What is around the versions: the ledger, the journal, the files beside versions, what is served, leftovers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from modelwright.config.edit import served_by
from modelwright.errors import ConfigError, ModelwrightError, RepositoryError
from modelwright.fsops import read_text
from modelwright.project.project import ProjectConfig
from modelwright.repair.damage import Action, Damage, Kind, Remedy
from modelwright.repair.hashes import Hashed
from modelwright.repository import pins, policy
from modelwright.repository.ledger import Ledger, ServingState, read_ledger
from modelwright.repository.manifest import is_ours
from modelwright.repository.recorded import KnownDigests, top_files, version_folders
from modelwright.repository.repository import Repository
from modelwright.triton.layout import (
    CONFIG,
    DATA_FOLDERS,
    LEDGER,
    MANIFEST,
    environment_config,
    version_number,
    version_served,
)

# --- the ledger and the journal ---------------------------------------------------------------------------------------


def check_ledger(repository: Repository, known: KnownDigests) -> Iterator[Damage]:
    """A ledger that cannot be read, or whose numbers are lower than those that were used."""
    place = repository.root / LEDGER
    rewrite = Remedy(Action.WRITE, "write it again, from its copy in the history, the journal and the folders")
    try:
        ledger = repository.ledger()
    except RepositoryError as error:
        yield Damage(place, "changed", error.message.partition(f"{LEDGER}: ")[2], remedy=rewrite)
        return
    used = highest_used(repository, known)
    if used and not place.is_file():
        yield Damage(place, "missing", "is missing", remedy=rewrite)
        return
    for model, number in used.items():
        if ledger.versions.get(model, -1) < number:
            problem = f"{model}: says {ledger.versions.get(model, 'nothing')}, and version {number} was published"
            yield Damage(place, "changed", problem, model, remedy=rewrite)


def highest_used(repository: Repository, known: KnownDigests) -> dict[str, int]:
    """{model: the highest number that a version of it was published under}, by folders and journal."""
    found: dict[str, int] = {}
    for model in repository.known_models():
        folders = version_folders(repository, model)
        if any(is_ours(folder / MANIFEST) for folder in folders.values()):
            found[model] = max(folders)
    for model, number in known.manifests:
        found[model] = max(number, found.get(model, number))
    return found


def copied_ledger(repository: Repository) -> Ledger:
    """The copy of the ledger in the history; an empty one where that cannot be read, which is said elsewhere."""
    try:
        return read_ledger(repository.history)
    except RepositoryError:
        return Ledger()


def check_journal(repository: Repository, ledger: Ledger) -> Iterator[Damage]:
    """Lines that are not what was written."""
    place = repository.journal.file
    remedy = Remedy(Action.REMOVE, "keep it aside and begin a new one: what a line said is only in a backup")
    breaks = repository.journal.check(ledger.journal)
    for found in breaks:
        yield Damage(place, "journal", f"line {found.line}: {found.problem}", remedy=remedy)
    own, now = copied_ledger(repository).journal, repository.journal.head()
    if own and not breaks and (now is None or now.first != own.first or now.lines < own.lines):
        problem = "is gone" if now is None else "is not the journal that was written here"
        yield Damage(place, "journal", problem, remedy=remedy)


# --- the files beside the versions ------------------------------------------------------------------------------------


def check_top_files(
    repository: Repository,
    model: str,
    hashes: Mapping[Path, Hashed],
    known: KnownDigests,
    rendered: Mapping[str, str],
    *,
    is_built: bool,
) -> Iterator[Damage]:
    """Files beside a model's versions that are not what was published last, or that nothing published.

    Of files that the journal does not know yet, `rendered` says what a build made last.
    `is_built`: its config is made here.
    """
    recorded = known.tops.get(model, {})
    found = top_files(repository, model)
    for name, digests in recorded.items():
        place, expected = repository.root / model / name, digests[-1]
        actual = hashes.get(place, Hashed(problem="is missing"))
        if actual.sha256 in digests:  # an older one: the last change did not come about
            continue
        if expected is None:
            if name in found:
                yield Damage(place, "added", "was removed, and is there again", model, name=name)
        elif actual.problem:
            kind: Kind = "missing" if name not in found else "unreadable"
            yield Damage(place, kind, actual.problem, model, name=name, expected=expected)
        # Which versions a config serves that is made here follows from other things (`check_served`).
        elif not (is_built and _is_plain(place, model, name, known)):
            problem = f"changed: SHA-256 {actual.sha256[:12]}…, published as {expected[:12]}…"
            yield Damage(place, "changed", problem, model, name=name, expected=expected)
    for name, place in found.items():
        actual = hashes.get(place, Hashed())
        if name not in recorded and name in rendered and actual.sha256 != rendered[name]:
            problem = f"changed: SHA-256 {actual.sha256[:12]}…, rendered as {rendered[name][:12]}…"
            yield Damage(place, "changed", problem, model, name=name, expected=rendered[name])
    if recorded:
        for name, place in found.items():
            if name not in recorded and version_served(name.partition("/")[0]) is None:
                problem = f"was not published, and a server that polls loads {model} again for it"
                yield Damage(place, "added", problem, model, name=name)


def _is_plain(place: Path, model: str, name: str, known: KnownDigests) -> bool:
    try:
        return known.has_plain(model, name, read_text(place))
    except (OSError, UnicodeDecodeError):
        return False


def check_folders(repository: Repository, model: str) -> Iterator[Damage]:
    """Folders that a server takes for versions and that are none, and empty ones."""
    for path in sorted((repository.root / model).iterdir()):
        if not path.is_dir() or path.name in DATA_FOLDERS:
            continue
        number = version_number(path.name)
        if number is None and version_served(path.name) is not None:
            yield Damage(path, "added", "a server takes it for a version", model, name=path.name)
        elif number is not None and not any(path.iterdir()):
            yield Damage(path, "added", "is empty", model, name=path.name)


# --- versions that are gone, or in two places -------------------------------------------------------------------------


def check_missing(repository: Repository, models: Collection[str], known: KnownDigests) -> Iterator[Damage]:
    """Versions that were there, and are neither live nor retired now."""
    for model, numbers in sorted((model, known.there[model]) for model in known.there if model in models):
        for number in sorted(numbers.difference(repository.versions(model), repository.retired(model))):
            place = repository.folder(model, number)
            expected = known.manifests.get((model, number), "")
            yield Damage(place, "missing", "the version is gone", model, number, expected=expected)


def check_twice(repository: Repository, damaged: Collection[tuple[str, int]]) -> Iterator[Damage]:
    """Versions that are live and retired: a process was killed between. `damaged` are live ones that need the other."""
    for model, number in repository.kept_twice():
        if (model, number) not in damaged:
            place = repository.retired_folder(model, number)
            remedy = Remedy(Action.REMOVE, "remove the retired copy")
            yield Damage(place, "twice", "is live, too", model, number, where="retired", remedy=remedy)


def check_leftovers(project: ProjectConfig) -> Iterator[Damage]:
    """What a killed process left in the staging folder."""
    if project.staging.is_dir() and any(project.staging.iterdir()):
        remedy = Remedy(Action.CLEAN, "remove it")
        yield Damage(project.staging, "leftover", "a process was killed and left files", remedy=remedy)


# --- what is served ---------------------------------------------------------------------------------------------------


def check_served(repository: Repository, model: str, ledger: Ledger, needed: pins.Needed) -> Iterator[Damage]:
    """Configs that serve other versions than the model's own policy, the promoted one and the pipelines ask for."""
    versions, state = repository.versions(model), ledger.state(model)
    for name in (CONFIG, *map(environment_config, repository.environments(model))):
        place = repository.root / model / name
        try:
            written = read_text(place)
            wanted = [_with_policy(written, model, versions, item, needed) for item in _states(state)]
        except (OSError, UnicodeDecodeError):  # said by others
            continue
        except ModelwrightError as error:
            yield Damage(place, "config", error.message.removeprefix(f"{model}: "), model, hint=error.hint)
            continue
        if written not in wanted:
            problem = f"serves {_served(written, model, versions)}, and {_served(wanted[0], model, versions)} is right"
            remedy = Remedy(Action.WRITE, "write its version_policy again", data=wanted[0].encode())
            yield Damage(place, "config", problem, model, name=name, remedy=remedy)


def _states(state: ServingState) -> Iterable[ServingState]:
    """What is served for a minute longer is right with and without."""
    return state, state.model_copy(update={"released": dict.fromkeys(state.released, policy.utc_now())})


def _with_policy(text: str, model: str, versions: Collection[int], state: ServingState, needed: pins.Needed) -> str:
    return policy.with_policy(text, model, versions, state, needed.get(model, {}), policy.utc_now())[0]


def _served(text: str, model: str, versions: Collection[int]) -> str:
    try:
        numbers = served_by(text, model, versions)
    except ConfigError:
        return "nothing"
    return " and ".join(map(str, numbers)) or "nothing"


def check_needed(repository: Repository, models: Collection[str], needed: pins.Needed) -> Iterator[Damage]:
    """Versions that pipelines need and that are not in the repository."""
    for model, wanted in sorted((model, needed[model]) for model in needed if model in models):
        live, retired = repository.versions(model), repository.retired(model)
        for number, pipelines in sorted(wanted.items()):
            if number in live:
                continue
            remedy = None
            if number in retired:
                remedy = Remedy(Action.WRITE, "bring the retired one back")
            problem = f"is needed by {' and '.join(pipelines)}, and is {'retired' if number in retired else 'gone'}"
            yield Damage(repository.folder(model, number), "missing", problem, model, number, remedy=remedy)
