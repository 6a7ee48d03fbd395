"""Where the versions of a model are: in the repository (live), or in the history beside it (retired)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelwright.digest import list_tree
from modelwright.errors import ConfigError, RepositoryError
from modelwright.repository.repository import Repository
from modelwright.repository.versions import check_known, published_config
from modelwright.triton.layout import CONFIG
from modelwright.triton.policy import selected

Place = Literal["live", "retired"]


@dataclass(frozen=True)
class VersionPlace:
    """One version of a model, and where it lies."""

    version: int
    place: Place
    folder: Path

    @property
    def size_bytes(self) -> int:
        """Of all its files."""
        return sum(path.lstat().st_size for path in list_tree(self.folder).values())

    @property
    def own_config(self) -> Path | None:
        """The config.pbtxt that it was published with. Versions of older Modelwrights have none."""
        path = self.folder / CONFIG
        return path if path.is_file() else None


def places(repository: Repository, model: str) -> dict[int, VersionPlace]:
    """Every version of a model, lowest first. Raises RepositoryError for a model that has none and no folder."""
    live, retired = repository.versions(model), repository.retired(model)
    if not live and not retired:
        check_known(repository, model)
    found = [VersionPlace(version, "retired", repository.retired_folder(model, version)) for version in retired]
    found += [VersionPlace(version, "live", repository.folder(model, version)) for version in live]
    return {item.version: item for item in sorted(found, key=lambda item: item.version)}


def place_of(repository: Repository, model: str, version: int) -> VersionPlace:
    """One version. Raises RepositoryError that says which there are, for a model or version that is not there."""
    found = places(repository, model)
    if version not in found:
        raise RepositoryError(f"{model}: there is no version {version}", there_are(found))
    return found[version]


def there_are(found: Mapping[int, VersionPlace]) -> str:
    """`in the repository: 3, 4; retired: 1, 2`"""
    parts = []
    for words, place in (("in the repository", "live"), ("retired", "retired")):
        numbers = [str(item.version) for item in found.values() if item.place == place]
        parts += [f"{words}: {', '.join(numbers)}"] if numbers else []
    return "; ".join(parts) or "it has no versions"


def served_versions(repository: Repository, model: str) -> tuple[list[int], str]:
    """The versions that a server serves by the published config, highest first; and why that is not known."""
    try:
        config = published_config(repository, model)
    except ConfigError as error:
        return [], error.message
    if config is None:
        return [], f"{model}: has no {CONFIG}, so no server loads it"
    return selected(config.version_policy, repository.versions(model)), ""
