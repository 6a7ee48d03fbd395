"""From where a damaged file can be restored: other copies of it here, a remote, or its builder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

from modelwright.build.store import Store
from modelwright.build.workspace import open_workspace, plan_workspace
from modelwright.digest import list_tree, sha256_file
from modelwright.errors import ModelwrightError, RepositoryError
from modelwright.project.project import ProjectConfig
from modelwright.remotes.record import copies
from modelwright.repair.damage import Action, Damage, Remedy
from modelwright.repair.versions import VersionFolder
from modelwright.repository.manifest import Manifest, read
from modelwright.repository.records import record_folder
from modelwright.triton.layout import MANIFEST, SIGNATURE

_CALLED = {"live": "the live copy", "retired": "the retired copy", "record": "its record in the history"}


class Sources:
    """Looks for files with the right digest. What it names was read, and is right.

    `manifests` are those of the versions that were checked. Remotes are those that served a version when this project
    pushed or pulled last, and `urls`.
    """

    def __init__(
        self,
        project: ProjectConfig,
        folders: Sequence[VersionFolder],
        manifests: Mapping[Path, Manifest],
        urls: Sequence[str],
    ) -> None:
        self._project = project
        self._folders = folders
        self._manifests = manifests
        self._urls = urls
        self._store = Store(project.store)

    def remedy(self, damage: Damage) -> Remedy | None:
        """How a damage can be repaired, the nearest way first."""
        if damage.remedy or damage.kind in ("server", "unsigned", "config"):
            return damage.remedy
        if damage.kind == "added":
            return Remedy(Action.REMOVE, "move it to model_history/damaged")
        if damage.expected and damage.name:
            for says, path in self._candidates(damage):
                if _is(path, damage.expected):
                    return Remedy(Action.COPY, f"copy it from {says}", path)
        if damage.version is not None and not damage.name and (files := self._whole(damage)):
            return Remedy(Action.COPY, "put it together again from the store and its record", files=files)
        return self._fetched(damage) or self._built(damage)

    def _candidates(self, damage: Damage) -> Iterator[tuple[str, Path]]:
        """Files that should have the digest, with what to call their places."""
        for item in self._folders:
            if item.model == damage.model and item.version == damage.version and item.where != damage.where:
                yield _CALLED[item.where], item.folder / damage.name
        yield from (("the store", path) for path in self._stored(damage))
        for item in self._folders:
            if item.model == damage.model and item.version != damage.version:
                for path in list_tree(item.folder).values() if damage.name != MANIFEST else ():
                    if path.name == Path(damage.name).name:
                        yield f"version {item.version}", path

    def _stored(self, damage: Damage) -> Iterator[Path]:
        """Files of artifacts that went into the version, and have the digest by their record."""
        manifest = self._manifest_of(damage)
        for key in [step.key for step in manifest.lineage] if manifest else []:
            if (artifact := self._store.get(key)) is not None:
                yield from (artifact.path(name) for name, digest in artifact.files.items() if digest == damage.expected)

    def _whole(self, damage: Damage) -> dict[str, Path]:
        """All files of a version that is gone; empty where one of them is nowhere."""
        record = record_folder(self._project.history, damage.model, damage.version or 0)
        files = {name: record / name for name in (MANIFEST, SIGNATURE) if (record / name).is_file()}
        manifest = read(files[MANIFEST]) if MANIFEST in files and _is(files[MANIFEST], damage.expected) else None
        if manifest is None:
            return {}
        self._manifests = {**self._manifests, damage.place: manifest}
        for name, entry in manifest.files.items():
            wanted = replace(damage, name=name, expected=entry.sha256)
            path = next((path for _, path in self._candidates(wanted) if _is(path, entry.sha256)), None)
            if path is None:
                return {}
            files[name] = path
        return files

    def _manifest_of(self, damage: Damage) -> Manifest | None:
        if damage.place in self._manifests:
            return self._manifests[damage.place]
        for item in self._folders:
            if (item.model, item.version) == (damage.model, damage.version) and item.folder in self._manifests:
                return self._manifests[item.folder]
        return None

    # --- remotes ------------------------------------------------------------------------------------------------------

    @cached_property
    def _copies(self) -> Mapping[tuple[str, int], list[str]]:
        try:
            known = copies(self._project.history)
        except RepositoryError:  # a damage of its own
            return {}
        return {version: [copy.url for copy in found] for version, found in known.items()}

    def _fetched(self, damage: Damage) -> Remedy | None:
        """A remote that is known to serve the version. What it sends is compared when it is fetched."""
        if damage.version is None or (damage.name == SIGNATURE and not damage.expected):
            return None
        urls = tuple(dict.fromkeys([*self._urls, *self._copies.get((damage.model, damage.version), ())]))
        return Remedy(Action.FETCH, f"fetch it from {' or '.join(urls)}", urls=urls) if urls else None

    # --- builders -----------------------------------------------------------------------------------------------------

    def _built(self, damage: Damage) -> Remedy | None:
        """Building again, where the builder is as it was: its steps then make the same files."""
        if damage.where != "live" or damage.name in (MANIFEST, SIGNATURE) or not damage.name:
            return None
        manifest = self._manifest_of(damage) if damage.version is not None else self._newest_manifest(damage.model)
        keys = {step.key for step in manifest.lineage} if manifest else set()
        planned = self._planned_keys(damage.model) if keys else None
        if planned and planned <= keys:
            return Remedy(Action.BUILD, f"build it again: {damage.model} is as it was when this was built")
        return None

    def _newest_manifest(self, model: str) -> Manifest | None:
        live = [item for item in self._folders if item.model == model and item.where == "live"]
        newest = max(live, key=lambda item: item.version, default=None)
        return self._manifests.get(newest.folder) if newest else None

    @cache  # noqa: B019  (lives as long as one fsck)
    def _planned_keys(self, model: str) -> frozenset[str]:
        """The keys of a model's steps, as far as they are known before any runs; none where it cannot be built."""
        try:
            workspace = open_workspace(self._project, [model])
            plan = plan_workspace(workspace)
        except ModelwrightError:
            return frozenset()
        if workspace.faults.errors or workspace.skipped:
            return frozenset()
        return frozenset(item.key for item in plan if item.step.model == model and item.key)


def _is(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and sha256_file(path) == sha256
    except OSError:
        return False


def with_remedies(damages: Iterable[Damage], sources: Sources) -> list[Damage]:
    return [replace(damage, remedy=sources.remedy(damage)) for damage in damages]
