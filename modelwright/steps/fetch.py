"""The step that has the files of a URI: those that source.lock names, each with the digest that stands there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from modelwright.digest import sha256_file, tree_digest
from modelwright.errors import StepError, located
from modelwright.facts.part import Facts, Integer
from modelwright.fsops import disk_errors
from modelwright.project.source_lock import FILE, LockedFile, SourceLock, read_source_lock
from modelwright.project.uris import uris_of
from modelwright.steps.context import StepContext
from modelwright.steps.sources.download import download
from modelwright.steps.sources.registry import open_source
from modelwright.steps.sources.resolve import KEPT
from modelwright.steps.sources.source import RemoteSource
from modelwright.text import size as size_text
from modelwright.triton.file_types import file_type


class FetchedFiles(Facts):
    count: Integer
    size_bytes: Integer


def run(context: StepContext, out: Path) -> FetchedFiles:
    """Put the files into `out`, by their paths below the folder. Raises StepError for one that is another one now."""
    builder = context.builder
    where = str(context.config["field"])
    uri = uris_of(builder.spec.source)[where]
    lock = read_source_lock(builder.folder, builder.file.rpartition("/")[0], uri)
    if tree_digest(lock.digests) != context.config["files"]:
        raise StepError(f"{builder.file}: {FILE} was changed while the build ran", "build again")
    with located(f"{builder.file}: {where}"):
        _Fetch(context, lock).run(out)
    return FetchedFiles(count=len(lock.files), size_bytes=lock.size_bytes)


class _Fetch:
    def __init__(self, context: StepContext, lock: SourceLock) -> None:
        self._context, self._lock = context, lock
        self._kept = context.cache / KEPT
        self._source: RemoteSource | None = None

    def run(self, out: Path) -> None:
        with disk_errors(self._kept):
            self._kept.mkdir(parents=True, exist_ok=True)
            for name, file in self._lock.files.items():
                target = out / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(self._kept_file(name, file), target)
            for file in self._lock.files.values():
                (self._kept / file.sha256).unlink(missing_ok=True)  # the store has them now

    def _kept_file(self, name: str, file: LockedFile) -> Path:
        """The file in the cache: it is there since it was resolved, or it is fetched now."""
        kept = self._kept / file.sha256
        if kept.is_file():
            if sha256_file(kept) == file.sha256:
                return kept
            kept.unlink()
        part = self._kept / f"{file.sha256}-{self._context.builder.name}.part"
        self._context.say(f"fetching {self._lock.resolved}: {name}, {size_text(file.size_bytes)}")
        if self._source is None:
            self._source = open_source(self._lock.resolved, self._context.registry)
        found = download(self._source, name, part, self._context.fetch_limits, file)
        if found != file:
            error = _changed(self._lock, self._context.builder.folder.name, name, file, found, part)
            part.unlink()
            raise error
        part.replace(kept)
        return kept


def _changed(lock: SourceLock, model: str, name: str, file: LockedFile, found: LockedFile, part: Path) -> StepError:
    what = file_type(part)
    expected = f"SHA-256 {file.sha256} ({file.size_bytes:,} bytes)"
    got = f"{found.sha256} ({found.size_bytes:,} bytes)" if found.sha256 else "more bytes"
    came = f"; what came is {what.what}" if what and (part.stat().st_size or not found.size_bytes) else ""
    hint = f"it was changed after it was locked: modelwright update {model} takes what is there now"
    return StepError(f"{lock.resolved}: {name}: expected {expected}, got {got}{came}", hint)


def _link(file: Path, target: Path) -> None:
    """The same file under another name, where the filesystem can; else a copy."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
