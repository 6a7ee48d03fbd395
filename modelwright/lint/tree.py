"""A repository as a server sees it: models, and what lies in their folders, without what is in the files.

The linter looks at folders that exist, and at those that a publish is about to make, which are put together from parts
(`planned.py`): an entry's path need not lie in its folder.
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
class Entry:
    """A name in a folder. `path` is where it really is: elsewhere than its name says, for a folder that is planned."""

    name: str
    path: Path
    kind: str  # 'file', 'folder', 'dangling' (a link to nothing, or a loop), 'other' (a socket, a device)
    link: str | None = None  # the target of a symbolic link, as it is written


@dataclass(frozen=True)
class ModelFolder:
    """One model's folder."""

    name: str
    path: Path
    entries: Mapping[str, Entry]
    error: str = ""  # why its entries could not be listed
    overrides: Mapping[str, Path] = field(default_factory=dict)  # relative path → where its bytes are
    _listed: dict[str, tuple[dict[str, Entry], str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> ModelFolder:
        entries, error = list_entries(path)
        return cls(name or path.name, path, entries, error)

    def inside(self, name: str) -> dict[str, Entry]:
        """What lies in one of its folders; empty where that is none, or cannot be listed."""
        return self._list(name)[0]

    def unreadable(self) -> dict[str, str]:
        """Folders that cannot be listed, and why; '' is the model's own."""
        found = {"": self.error} | {name: self._list(name)[1] for name in self.folders}
        return {name: reason for name, reason in found.items() if reason}

    def _list(self, name: str) -> tuple[dict[str, Entry], str]:
        if name not in self._listed:
            entry = self.entries.get(name)
            self._listed[name] = list_entries(entry.path) if entry and entry.kind == "folder" else ({}, "")
        return self._listed[name]

    def locate(self, relative: str) -> Path:
        """Where a path that is relative to the model's folder really leads."""
        if relative in self.overrides:
            return self.overrides[relative]
        first, _, rest = relative.partition("/")
        rest = rest.lstrip("/")  # the server puts paths together as text: an absolute one does not lead away
        entry = self.entries.get(first)
        base = entry.path if entry else self.path / first
        return base / rest if rest else base

    @cached_property
    def folders(self) -> list[str]:
        """Names of all folders in it, in the server's order: that of their bytes."""
        return sorted((name for name, entry in self.entries.items() if entry.kind == "folder"), key=os.fsencode)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Folder → the version that the server takes it for."""
        served = {name: version_served(name) for name in self.folders}
        return {name: number for name, number in served.items() if number is not None}

    @cached_property
    def versions(self) -> list[int]:
        """The versions there are for the server, highest first."""
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
    """All models of a repository, and what else lies at its root."""

    root: Path
    models: Mapping[str, ModelFolder]
    entries: Mapping[str, Entry]

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


def list_entries(folder: Path) -> tuple[dict[str, Entry], str]:
    """A folder's entries by name, and why there are none where it cannot be listed. Links are followed."""
    found = {}
    try:
        with os.scandir(folder) as items:
            for item in items:
                found[item.name] = _entry(item)
    except OSError as error:
        return {}, error.strerror or str(error)
    return found, ""


def _entry(item: os.DirEntry[str]) -> Entry:
    link = str(Path(item.path).readlink()) if item.is_symlink() else None
    try:
        if link is None:
            kind = "folder" if item.is_dir() else "file" if item.is_file() else "other"
        else:
            mode = item.stat().st_mode
            kind = "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
    except OSError:
        kind = "dangling"
    return Entry(item.name, Path(item.path), kind, link)
