"""`sign` and `sbom`: the signature and the bill of materials of versions that are published."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.build.build import LOCK
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import RepositoryError
from modelwright.fsops import locked, read_file
from modelwright.operations.places import VersionPlace, place_of, places
from modelwright.project.project import ProjectConfig
from modelwright.repository.manifest import read_ours
from modelwright.repository.mend import put_file
from modelwright.repository.records import keep_record
from modelwright.repository.repository import Repository
from modelwright.repository.sbom import sbom_of
from modelwright.repository.signing import check_key, sign_into
from modelwright.triton.layout import MANIFEST, SBOM, SIGNATURE

Say = Callable[[str], Any]


@dataclass(frozen=True)
class Signed:
    """A version, and whether it was signed now or had a signature."""

    model: str
    version: int
    new: bool


def sign(
    project: ProjectConfig,
    names: Sequence[str],
    version: int | None = None,
    *,
    again: bool = False,
    why: str = "",
    wait: bool = False,
    say: Say,
) -> list[Signed]:
    """Sign the versions of these models, or of all, that have no signature; with `again` those that have one, too.

    Raises SigningError where the key does not sign, RepositoryError for an unknown model or version, and for one whose
    files are not what its manifest says; nothing is signed then.
    """
    check_key(project.signing)
    repository = Repository.of(project)
    with locked(project.state / LOCK, "modelwright sign", wait=wait, say=say):
        chosen = _chosen(repository, names, version)
        wanted = [(model, item) for model, item in chosen if again or not (item.folder / SIGNATURE).is_file()]
        for model, item in wanted:
            damage = repository.damage(model, item.version, retired=item.place == "retired")
            if damage:
                hint = f"find out what is wrong, and repair it first: modelwright fsck {model}"
                raise RepositoryError(f"{model}: version {item.version}: {', '.join(damage[:5])}", hint)
        for model, item in wanted:
            _sign(project, repository, model, item, why)
        if wanted:
            repository.reserve()
        signed = {(model, item.version) for model, item in wanted}
    return [Signed(model, item.version, (model, item.version) in signed) for model, item in chosen]


def _chosen(repository: Repository, names: Sequence[str], version: int | None) -> list[tuple[str, VersionPlace]]:
    """The versions that were made here."""
    if version is not None:
        if len(names) != 1:
            raise RepositoryError("a version is one of one model", "name one model: modelwright sign NAME N")
        return [(names[0], place_of(repository, names[0], version))]
    known = repository.known_models()
    found = [(model, item) for model in names or known for item in places(repository, model).values()]
    return [(model, item) for model, item in found if (item.folder / MANIFEST).is_file()]


def _sign(project: ProjectConfig, repository: Repository, model: str, item: VersionPlace, why: str) -> None:
    """Sign one version: the signature is made outside, told in the journal, and comes in by one rename."""
    repository.staging.mkdir(parents=True, exist_ok=True)
    staged = repository.staging / f"{uuid.uuid4().hex}.sig"
    sign_into(item.folder, staged, project.signing)
    details: dict[str, Any] = {"signatures": {str(item.version): sha256_file(staged)}}
    repository.journal.append("sign", model, item.version, why=why, details=details)
    put_file(repository, item.folder / SIGNATURE, staged, repository.damaged / staged.stem / SIGNATURE)
    keep_record(repository.history, model, item.version, item.folder, repository.staging)
    staged.unlink()


def sbom(project: ProjectConfig, model: str, version: int | None = None) -> bytes:
    """The bill of materials of a version, by default of the newest. One of an older Modelwright is made now.

    Raises RepositoryError for an unknown model or version, and for a version that was not made here.
    """
    repository = Repository.of(project)
    found = places(repository, model)
    number = version if version is not None else max(found, default=None)
    if number is None:
        raise RepositoryError(f"{model}: has no versions", f"build it: modelwright build {model}")
    folder = place_of(repository, model, number).folder
    if (folder / SBOM).is_file():
        return read_file(folder / SBOM)
    return _made_now(folder, model, number)


def _made_now(folder: Path, model: str, version: int) -> bytes:
    manifest = read_ours(folder / MANIFEST)
    if manifest is None:
        raise RepositoryError(f"{model}: version {version} was not made here: nothing says what is in it")
    files = list_tree(folder)
    missing = [name for name in manifest.files if name not in files]
    if missing:
        hint = f"restore it: modelwright fsck {model} --repair"
        raise RepositoryError(f"{model}: version {version}: {missing[0]} is missing", hint)
    return sbom_of(manifest, files)
