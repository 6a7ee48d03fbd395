"""A repository as a server sees it: models and the files in their folders, without the files' content.

The repository may exist, or be what a publish is about to make (`build/planned_tree.py`): the path of an entry can then
be outside its folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from modelwright.triton.layout import CONFIG, CONFIGS, environment_of, in_range, version_served


@dataclass(frozen=True)
class TreeEntry:
    """A name in a folder. `path` is where its bytes are, which can be elsewhere for a planned repository."""

    name: str
    path: Path
    kind: str  # 'file', 'folder', 'dangling' (a broken or circular link), 'other' (a socket, a device)
    link: str | None = None  # the target of a symbolic link, as the link holds it


@dataclass(frozen=True)
class ModelFolder:
    """One model's folder."""

    name: str
    path: Path
    entries: Mapping[str, TreeEntry]
    error: str = ""  # why its entries could not be listed
    overrides: Mapping[str, Path] = field(default_factory=dict)  # relative path → where its bytes are
    _listed: dict[str, tuple[dict[str, TreeEntry], str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> ModelFolder:
        entries, error = list_entries(path)
        return cls(name or path.name, path, entries, error)

    def inside(self, name: str) -> dict[str, TreeEntry]:
        """The entries of one of its folders; empty for a file, or a folder that cannot be listed."""
        return self._list(name)[0]

    def unreadable(self) -> dict[str, str]:
        """{folder that cannot be listed: reason}; '' is the model's own folder."""
        found = {"": self.error} | {name: self._list(name)[1] for name in self.folders}
        return {name: reason for name, reason in found.items() if reason}

    def _list(self, name: str) -> tuple[dict[str, TreeEntry], str]:
        if name not in self._listed:
            entry = self.entries.get(name)
            self._listed[name] = list_entries(entry.path) if entry and entry.kind == "folder" else ({}, "")
        return self._listed[name]

    def has(self, relative: str) -> bool:
        """Whether there is such a name in the model's folder, or in one of its folders: `file`, or `folder/file`."""
        folder, _, name = relative.rpartition("/")
        return relative in self.overrides or name in (self.inside(folder) if folder else self.entries)

    def locate(self, relative: str) -> Path:
        """The real place of a path that is relative to the model's folder."""
        if relative in self.overrides:
            return self.overrides[relative]
        first, _, rest = relative.partition("/")
        rest = rest.lstrip("/")  # the server joins paths as text: an absolute path stays in the folder
        entry = self.entries.get(first)
        base = entry.path if entry else self.path / first
        return base / rest if rest else base

    @cached_property
    def folders(self) -> list[str]:
        """Names of all its folders, in the server's order: by their bytes."""
        return sorted((name for name, entry in self.entries.items() if entry.kind == "folder"), key=os.fsencode)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Folder → the version that the server takes it for."""
        served = {name: version_served(name) for name in self.folders}
        return {name: number for name, number in served.items() if number is not None}

    @cached_property
    def versions(self) -> list[int]:
        """The versions that the server sees, highest first."""
        return sorted({number for number in self.numbers.values() if in_range(number)}, reverse=True)

    @cached_property
    def config_files(self) -> dict[str, str]:
        """'' → config.pbtxt; 'cpu' → configs/cpu.pbtxt."""
        files = {"": CONFIG} if CONFIG in self.entries else {}
        for file in (f"{CONFIGS}/{name}" for name in sorted(self.inside(CONFIGS))):
            environment = environment_of(file)
            if environment is not None:
                files[environment] = file
        return files


@dataclass(frozen=True)
class RepositoryTree:
    """All models of a repository, and all entries of its root."""

    root: Path
    models: Mapping[str, ModelFolder]
    entries: Mapping[str, TreeEntry]

    @classmethod
    def read(cls, root: Path) -> RepositoryTree:
        entries, _ = list_entries(root)
        models = {
            name: ModelFolder.read(entry.path, name)
            for name, entry in sorted(entries.items())
            if entry.kind == "folder"
        }
        return cls(root, models, entries)


def is_hidden(name: str) -> bool:
    return name.startswith(".")


def list_entries(folder: Path) -> tuple[dict[str, TreeEntry], str]:
    """A folder's entries by name, following links; and the reason if it cannot be listed."""
    found = {}
    try:
        with os.scandir(folder) as items:
            for item in items:
                found[item.name] = _entry(item)
    except OSError as error:
        return {}, error.strerror or str(error)
    return found, ""


def _entry(item: os.DirEntry[str]) -> TreeEntry:
    link = str(Path(item.path).readlink()) if item.is_symlink() else None
    try:
        if link is None:
            kind = "folder" if item.is_dir() else "file" if item.is_file() else "other"
        else:
            mode = item.stat().st_mode
            kind = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
    except OSError:
        kind = "dangling"
    return TreeEntry(item.name, Path(item.path), kind, link)
