"""Everything that is wrong with a repository and its history: each file is read once, by several threads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.build.publisher import rendered_files
from modelwright.digest import list_tree
from modelwright.errors import RepositoryError
from modelwright.lint.engine import lint
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.project.project import ProjectConfig
from modelwright.remotes.record import RECORD, read_record
from modelwright.repair import state
from modelwright.repair.damage import Action, Damage, Remedy
from modelwright.repair.hashes import Hashed, hash_files
from modelwright.repair.versions import VersionFolder, check_record, check_version
from modelwright.repository import pins, signing
from modelwright.repository.journal import JOURNAL
from modelwright.repository.ledger import Ledger, read_ledger
from modelwright.repository.manifest import Manifest
from modelwright.repository.recorded import KnownDigests, recorded, unrecorded
from modelwright.repository.records import record_folder, record_folders
from modelwright.repository.repository import Repository
from modelwright.repository.versions import with_ensembles
from modelwright.triton.layout import LEDGER, SIGNATURE


@dataclass(frozen=True)
class Checked:
    damages: tuple[Damage, ...]
    folders: tuple[VersionFolder, ...]
    manifests: dict[Path, Manifest]  # of the version folders whose manifest is right
    foreign: tuple[VersionFolder, ...]  # versions that were not made here
    unrecorded: tuple[str, ...]  # models with files that the journal does not know
    files: int
    size_bytes: int


def check(project: ProjectConfig, repository: Repository, names: Collection[str] = ()) -> Checked:
    """Look at the versions of these models, or of all, live and retired, and at what is around them.

    Raises SigningError where signatures cannot be checked at all: a key or a package is missing.
    """
    models = [name for name in repository.known_models() if not names or name in names]
    folders = tuple(_folders(repository, models))
    known = recorded(repository.journal.read()[0])
    paths = [path for name in models for path in list_tree(repository.root / name).values()]
    paths += [path for item in folders if item.where != "live" for path in list_tree(item.folder).values()]
    if any(path.name == SIGNATURE for path in paths):
        signing.check_verifier(project.signing)
    hashes = hash_files(paths)
    damages: list[Damage] = []
    manifests: dict[Path, Manifest] = {}
    foreign = []
    twins = {(item.model, item.version): item.folder for item in folders if item.where != "record"}
    for item in folders:
        if item.where == "record":
            twin = twins.get((item.model, item.version), item.folder)
            damages += check_record(item, hashes, known, twin)
            continue
        record = record_folder(repository.history, item.model, item.version)
        checked = check_version(item, hashes, known, project.signing, record)
        damages += checked.damages
        if checked.manifest is not None:
            manifests[item.folder] = checked.manifest
        if checked.foreign:
            foreign.append(item)
    damages += _around(project, repository, models, hashes, known, manifests, damages)
    return Checked(
        tuple(damages),
        folders,
        manifests,
        tuple(foreign),
        tuple(model for model in models if unrecorded(repository, model, known)),
        len(hashes),
        sum(item.size_bytes for item in hashes.values()),
    )


def _folders(repository: Repository, models: Sequence[str]) -> Iterator[VersionFolder]:
    twice = set(repository.kept_twice())
    for model in models:
        for number in repository.versions(model):
            if any(repository.folder(model, number).iterdir()):  # an empty one is said to be so
                yield VersionFolder(model, number, repository.folder(model, number), "live")
        for number in {*repository.retired(model), *(number for name, number in twice if name == model)}:
            yield VersionFolder(model, number, repository.retired_folder(model, number), "retired")
    for (model, number), folder in record_folders(repository.history).items():
        if model in models:
            yield VersionFolder(model, number, folder, "record")


def _around(
    project: ProjectConfig,
    repository: Repository,
    models: Sequence[str],
    hashes: dict[Path, Hashed],
    known: KnownDigests,
    manifests: dict[Path, Manifest],
    found: Sequence[Damage],
) -> Iterator[Damage]:
    """What is wrong around the versions, given what is wrong with them."""
    yield from state.check_ledger(repository, known)
    try:
        ledger = repository.ledger()
    except RepositoryError:
        ledger = Ledger()
    yield from state.check_journal(repository, ledger)
    yield from _check_history(repository)
    gone = list(state.check_missing(repository, models, known))
    yield from gone
    damaged = {(item.model, item.version or 0) for item in found if item.version is not None and item.where == "live"}
    yield from state.check_twice(repository, damaged)
    yield from state.check_leftovers(project)
    needed = pins.needed(repository)
    yield from state.check_needed(repository, models, needed)
    live = [name for name in models if (repository.root / name).is_dir()]
    for name in live:
        ours = [manifests[path] for path in manifests if path.parent == repository.root / name]
        is_built = bool(ours) and not any(item.made.prebuilt for item in ours)
        rendered = rendered_files(project, name)
        tops = list(state.check_top_files(repository, name, hashes, known, rendered, is_built=is_built))
        yield from tops
        changed = {item.name for item in tops}
        served = state.check_served(repository, name, ledger, needed) if is_built else ()
        yield from (item for item in served if item.name not in changed)
        yield from state.check_folders(repository, name)
    damaged_models = {model for model, _ in damaged} | {item.model for item in gone}
    yield from _linted(project, {*live} - {*with_ensembles(repository, damaged_models), *damaged_models})


def _linted(project: ProjectConfig, models: Collection[str]) -> Iterator[Damage]:
    """What a server would refuse, of the models whose files are as they must be."""
    if not project.repository.is_dir():
        return
    report = lint(RepositoryTree.read(project.repository), Options(project.target), project.ignores)
    for item in report.errors:
        if not item.model or item.model in models:
            place = project.repository / item.file
            problem = f"{item.rule.id}: {item.message}"
            yield Damage(place, "server", problem, item.model, hint=item.fix)


def _check_history(repository: Repository) -> Iterator[Damage]:
    """The other files of the history: the copy of the ledger, what remotes serve, and what does not belong there."""
    history = repository.history
    rewrite = Remedy(Action.WRITE, "write it again")
    try:
        read_ledger(history)
    except RepositoryError as error:
        yield Damage(history / LEDGER, "changed", error.message.partition(f"{LEDGER}: ")[2], remedy=rewrite)
    try:
        read_record(history)
    except RepositoryError as error:
        yield Damage(history / RECORD, "changed", error.message.partition(f"{RECORD}: ")[2], hint=error.hint)
    own = {JOURNAL, LEDGER, RECORD}
    for path in sorted(history.iterdir()) if history.is_dir() else ():
        if path.is_file() and path.name not in own:
            yield Damage(path, "added", "does not belong here")
