"""A ledger that is lost or damaged, made again of what else tells its content."""

from __future__ import annotations

from modelwright.errors import RepositoryError
from modelwright.repair.state import highest_used
from modelwright.repository.ledger import Ledger, read_ledger
from modelwright.repository.recorded import KnownDigests
from modelwright.repository.repository import Repository


def rebuilt_ledger(repository: Repository, known: KnownDigests) -> Ledger:
    """What the repository's ledger must say at least: no number of a version is given out twice.

    The copy in the history has it all. Without that, what operators decided is lost: a promoted version stays served
    until the next build, since config.pbtxt says so.
    """
    base = _readable(repository)
    versions = dict(base.versions)
    for model, number in highest_used(repository, known).items():
        versions[model] = max(number, versions.get(model, number))
    fixed = {model: dict(numbers) for model, numbers in base.fixed.items()}
    for model in repository.models():
        for number in repository.versions(model):
            try:
                manifest = repository.manifest(model, number)
            except RepositoryError:
                continue
            if manifest is not None and manifest.made.prebuilt:
                fixed.setdefault(model, {})[str(number)] = manifest.version_digest
    return Ledger(versions, fixed, base.serving, repository.journal.head())


def _readable(repository: Repository) -> Ledger:
    """The ledger with the most in it of those that can be read."""
    found = []
    for folder in (repository.root, repository.history):
        try:
            found.append(read_ledger(folder))
        except RepositoryError:
            continue
    return max(found, key=lambda ledger: ledger.journal.lines if ledger.journal else 0, default=Ledger())
