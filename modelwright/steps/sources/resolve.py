"""From a URI to what source.lock says of it: every file is fetched once, and kept for the step that needs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from modelwright.errors import StepError, located
from modelwright.fsops import disk_errors
from modelwright.project.fetching import FetchLimits
from modelwright.project.source_lock import MOST_FILES, LockedFile, SourceLock, check_file_name
from modelwright.project.uris import file_name
from modelwright.steps.sources.download import download
from modelwright.steps.sources.registry import open_source
from modelwright.steps.sources.source import RemoteSource
from modelwright.text import counted
from modelwright.text import size as size_text
from modelwright.triton.file_types import ANNEX_POINTER, EMPTY, HTML, LFS_POINTER, file_type

KEPT = "sources"  # in the cache: fetched files by their SHA-256

_POINTERS = (LFS_POINTER, ANNEX_POINTER)
_NO_FILES = (*_POINTERS, HTML, EMPTY)


def _none(path: Path) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Selection:
    """What a kind takes of what is at a URI."""

    beside: Callable[[Path], Sequence[str]] = _none  # of a file: names of files beside it that belong to it
    leaves_out: Sequence[str] = ()  # of a folder: patterns of names of files


@dataclass(frozen=True)
class Resolver:
    """Resolves URIs; what it fetches stays in `cache`."""

    cache: Path
    limits: FetchLimits = field(default_factory=FetchLimits)
    say: Callable[[str], Any] = lambda _: None
    registry: str = ""  # URI of the project's MLflow

    def resolve(self, uri: str, selection: Selection) -> SourceLock:
        """What a URI stands for now. Raises ModelwrightError."""
        source = open_source(uri, self.registry)
        names = self._names(source, selection)
        total = sum(max(size, 0) for size in names.values())
        more = f": {counted(len(names), 'file')}, {size_text(total)}" if total else ""
        self.say(f"fetching {source.resolved}{more}")
        files = {name: self._take(source, name) for name in names}
        if not source.is_folder:
            path = self.cache / KEPT / files[file_name(uri)].sha256
            files |= {name: self._take(source, name) for name in selection.beside(path)}
        return SourceLock(uri, source.resolved, files, source.is_folder, source.details)

    def _names(self, source: RemoteSource, selection: Selection) -> Mapping[str, int]:
        listed = source.files()
        if source.is_folder:
            listed = {name: size for name, size in listed.items() if not _left_out(name, selection.leaves_out)}
        if not listed:
            raise StepError(f"{source.resolved}: no file is there that a model is made of", "see to the URI")
        if len(listed) > MOST_FILES:
            hint = "name the folder of one model"
            raise StepError(f"{source.resolved}: {len(listed):,} files, {MOST_FILES:,} at most", hint)
        for name in listed:
            _check_name(source, name)
        total = sum(max(size, 0) for size in listed.values())
        if total > self.limits.max_bytes:
            hint = "if it is meant: modelwright.toml: [sources] and max_gb = …"
            what = f"{size_text(total)}, {self.limits.max_gb:g} GB at most"
            raise StepError(f"{source.resolved}: {what}", hint)
        return listed

    def _take(self, source: RemoteSource, name: str) -> LockedFile:
        """Fetch a file, and keep it under its digest."""
        _check_name(source, name)
        folder = self.cache / KEPT
        part = folder / f"resolving-{os.getpid()}.part"
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(folder)
            try:
                found = download(source, name, part, self.limits)
                with located(source.resolved):
                    _check_content(part, name, alone=not source.is_folder)
                part.replace(folder / found.sha256)
            finally:
                part.unlink(missing_ok=True)
        return found


def _remove_leftovers(folder: Path) -> None:
    """What processes left that were killed."""
    for path in folder.glob("resolving-*.part"):
        process = path.stem.rpartition("-")[2]
        if not Path("/proc", process).exists() and Path("/proc/self").exists():
            path.unlink(missing_ok=True)


def _left_out(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern) for pattern in patterns)


def _check_name(source: RemoteSource, name: str) -> None:
    try:
        check_file_name(name)
    except ValueError as error:
        raise StepError(f"{source.resolved}: {error}", "rename it there") from None


def _check_content(path: Path, name: str, *, alone: bool) -> None:
    """Refuse what stands for a file: a pointer, and where one file was named a web page with an error, or nothing."""
    found = file_type(path) if path.stat().st_size < _LARGEST_PAGE else None
    if found in (_NO_FILES if alone else _POINTERS):
        assert found
        raise StepError(f"{name} is {found.what}", found.fix)


_LARGEST_PAGE = 10_000_000
