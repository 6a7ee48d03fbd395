"""The objects below a prefix: listed, read, written and removed one by one. What was written is checked there.

An object appears at once, complete, and so does a file of a folder. `Entry.stamp` changes whenever an object does:
where it is as it was when an object's SHA-256 was known, the object is the same.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import RemoteError, RepositoryError
from modelwright.fsops import disk_errors, fsync_path, open_file, read_file, rename_durably
from modelwright.remotes.faults import is_damaged, is_missing_bucket, store_errors
from modelwright.remotes.place import RemotePlace

Source = Path | bytes

_PART = 8 << 20  # of a large object: what is in memory at once is a few of these for each transfer
_MOST_PARTS = 10_000  # that S3 takes
_TRANSFERS = 4  # parts of one object at the same time
_TRIES = 3
_STAGED = ".modelwright-"  # the server looks at folders there, and at no files


@dataclass(frozen=True)
class Entry:
    size_bytes: int
    stamp: str


class RemoteStore(ABC):
    """Where `place` leads to. Every method raises RemoteError for what goes wrong there."""

    def __init__(self, place: RemotePlace) -> None:
        self.place = place

    @abstractmethod
    def entries(self) -> dict[str, Entry]:
        """All objects, by their names below the prefix."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""

    @abstractmethod
    def put(self, name: str, source: Source, sha256: str = "") -> Entry:
        """Write an object, and check it. Raises RepositoryError where the file is not what its SHA-256 says."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write an object where there is none; False where there is one."""

    @abstractmethod
    def fetch(self, name: str, target: Path) -> str:
        """Copy an object into a file. Returns the SHA-256 of what was written."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is fine."""

    @abstractmethod
    def is_same(self, name: str, entry: Entry, file: Path, sha256: str) -> bool:
        """Whether an object that nothing is known of holds what this file holds."""


def open_store(place: RemotePlace) -> RemoteStore:
    return FolderStore(place) if place.scheme == "file" else ObjectStore(place)


# --- digests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Digests:
    """Of one reading of a source: its SHA-256, and the checksums that stores give."""

    size_bytes: int
    sha256: str
    md5: str
    parts_md5: str  # as S3 has it for an object that came in parts: "<md5 of the parts' md5>-<number of parts>"


def part_bytes(size_bytes: int) -> int:
    """The size of the parts that a large object is sent in."""
    least = -(-size_bytes // _MOST_PARTS)
    return max(_PART, -(-least // (1 << 20)) << 20)


def digests_of(source: Source) -> Digests:
    whole, sha = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    parts, count, read = hashlib.md5(usedforsecurity=False), 0, 0
    for piece in _pieces(source, part_bytes(size)):
        whole.update(piece)
        sha.update(piece)
        parts.update(hashlib.md5(piece, usedforsecurity=False).digest())
        count, read = count + 1, read + len(piece)
    return Digests(read, sha.hexdigest(), whole.hexdigest(), f"{parts.hexdigest()}-{count}")


def _pieces(source: Source, size: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield from (source[at : at + size] for at in range(0, len(source), size))
        return
    with open_file(source) as file:
        while piece := file.read(size):
            yield piece


def _checked(source: Source, name: str, sha256: str) -> Digests:
    """Raises RepositoryError for a file that was damaged, or has left the repository."""
    try:
        digests = digests_of(source)
    except FileNotFoundError:
        hint = "another command took it out of the repository; run the same command again"
        raise RepositoryError(f"{name}: left the repository while it was pushed", hint) from None
    if sha256 and digests.sha256 != sha256:
        hint = "it was damaged after it was published: modelwright fsck says where it can be restored from"
        raise RepositoryError(f"{name}: is not what its manifest says", hint)
    return digests


# --- object stores ----------------------------------------------------------------------------------------------------


class ObjectStore(RemoteStore):
    """S3, Google Cloud Storage and Azure, by fsspec."""

    def __init__(self, place: RemotePlace, file_system: Any = None) -> None:
        super().__init__(place)
        with store_errors(place):
            self._fs = file_system or file_system_of(place)

    def entries(self) -> dict[str, Entry]:
        with store_errors(self.place):
            found = self._fs.find(self.place.root, detail=True)
            if not found:  # a store may answer so for a bucket that is not there, too
                self._fs.ls(self.place.bucket)
        start = f"{self.place.root}/"
        return {
            path[len(start) :]: Entry(int(info["size"] or 0), _stamp(info))
            for path, info in found.items()
            if path.startswith(start) and not path.endswith("/") and info.get("type") != "directory"
        }

    def read(self, name: str) -> bytes | None:
        with store_errors(self.place, name):
            try:
                return bytes(self._fs.cat_file(self._path(name)))
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
                return None

    def put(self, name: str, source: Source, sha256: str = "") -> Entry:
        digests = _checked(source, name, sha256)
        for attempt in range(1, _TRIES + 1):
            with store_errors(self.place, name, writes=True):
                self._send(name, source, digests)
                info = self._fs.info(self._path(name), refresh=True)
                if int(info["size"]) == digests.size_bytes and self._holds(name, info, digests):
                    return Entry(digests.size_bytes, _stamp(info))
            if attempt == _TRIES:
                break
            _checked(source, name, digests.sha256)
        hint = "something between here and the store changes what is sent; run the same command again"
        raise RemoteError(f"{self.place.of(name)}: is not what was sent, after {_TRIES} tries", hint)

    def _send(self, name: str, source: Source, digests: Digests) -> None:
        path = self._path(name)
        if isinstance(source, bytes):
            self._fs.pipe_file(path, source)
            return
        options: dict[str, Any] = {"chunksize": part_bytes(digests.size_bytes)} if self.place.scheme != "az" else {}
        if self.place.scheme == "s3":
            options["max_concurrency"] = _TRANSFERS
        if self.place.scheme == "az":
            options |= {"overwrite": True, "max_concurrency": _TRANSFERS}
        self._fs.put_file(str(source), path, **options)

    def create(self, name: str, data: bytes) -> bool:
        with store_errors(self.place, name, writes=True):
            try:
                options = {"overwrite": False} if self.place.scheme == "az" else {"mode": "create"}
                self._fs.pipe_file(self._path(name), data, **options)
            except FileExistsError:
                return False
            except OSError as error:
                if _is_there_already(error):
                    return False
                raise
        return True

    def fetch(self, name: str, target: Path) -> str:
        with disk_errors(target), store_errors(self.place, name):
            options = {"chunksize": _PART, "max_concurrency": _TRANSFERS} if self.place.scheme == "s3" else {}
            self._fs.get_file(self._path(name), str(target), **options)
        return digests_of(target).sha256

    def delete(self, name: str) -> None:
        with store_errors(self.place, name), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def is_same(self, name: str, entry: Entry, file: Path, sha256: str) -> bool:
        digests = digests_of(file)
        if digests.sha256 != sha256 or digests.size_bytes != entry.size_bytes:
            return False
        with store_errors(self.place, name):
            return self._holds(name, self._fs.info(self._path(name), refresh=True), digests)

    def _holds(self, name: str, info: dict[str, Any], digests: Digests) -> bool:
        """Whether an object of the right size holds this content: by its checksum, else by reading it."""
        if _md5(info) == digests.md5 or _etag(info) in (digests.md5, digests.parts_md5):
            return True
        sha = hashlib.sha256()
        try:
            with self._fs.open(self._path(name), "rb", block_size=_PART) as file:
                while piece := file.read(_PART):
                    sha.update(piece)
        except Exception as error:
            if is_damaged(error):
                return False
            raise
        return sha.hexdigest() == digests.sha256

    def _path(self, name: str) -> str:
        return f"{self.place.root}/{name}"


def file_system_of(place: RemotePlace) -> Any:
    import fsspec

    options: dict[str, Any] = {**place.options, "use_listings_cache": False, "skip_instance_cache": True}
    if place.scheme == "s3":
        # The library repeats what botocore repeated already.
        made = fsspec.filesystem("s3", **options)
        made.retries = 2
        return made
    return fsspec.filesystem({"az": "abfs"}.get(place.scheme, place.scheme), **options)


def _etag(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("etag") or "").strip('"')


def _stamp(info: dict[str, Any]) -> str:
    return _etag(info) or _md5(info) or str(info.get("generation") or "")


def _md5(info: dict[str, Any]) -> str:
    """The MD5 that Google Cloud Storage (base64) and Azure (bytes) give of most objects, as hexadecimal digits."""
    value = info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5") or b""
    return (base64.b64decode(value) if isinstance(value, str) else bytes(value)).hex()


def _is_there_already(error: OSError) -> bool:
    """How stores refuse to create an object that is there; two that come at once get a 409."""
    response = getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return code in ("PreconditionFailed", "ConditionalRequestConflict", "412", "409") or "412" in str(error)


# --- folders ----------------------------------------------------------------------------------------------------------


class FolderStore(RemoteStore):
    """A folder, such as one that a server sees over the network. Files appear in it by a rename."""

    def __init__(self, place: RemotePlace) -> None:
        super().__init__(place)
        if self._root.exists() and not self._root.is_dir():
            raise RemoteError(f"{place.url}: is not a folder", "name a folder, or one that is not there yet")

    @property
    def _root(self) -> Path:
        return Path(self.place.root)

    def entries(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        with store_errors(self.place):
            for parent, folders, names in os.walk(self._root):
                folders.sort()
                for name in sorted(names):
                    path = Path(parent, name)
                    relative = path.relative_to(self._root).as_posix()
                    if path.is_file() and not relative.startswith(_STAGED):
                        found[relative] = _file_entry(path)
        return found

    def read(self, name: str) -> bytes | None:
        with store_errors(self.place, name):
            try:
                return read_file(self._root / name, 2**30)
            except FileNotFoundError:
                return None

    def put(self, name: str, source: Source, sha256: str = "") -> Entry:
        digests = _checked(source, name, sha256)
        target = self._root / name
        with disk_errors(target), store_errors(self.place, name):
            staged = self._staged(source)
            try:
                if digests_of(staged).sha256 != digests.sha256:
                    raise RemoteError(f"{self.place.of(name)}: is not what was written", "see to the disk")
                target.parent.mkdir(parents=True, exist_ok=True)
                rename_durably(staged, target)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise
            return _file_entry(target)

    def create(self, name: str, data: bytes) -> bool:
        with disk_errors(self._root / name), store_errors(self.place, name):
            staged = self._staged(data)
            try:
                os.link(staged, self._root / name)
            except FileExistsError:
                return False
            finally:
                staged.unlink()
        return True

    def _staged(self, source: Source) -> Path:
        self._root.mkdir(parents=True, exist_ok=True)
        staged = self._root / f"{_STAGED}{uuid.uuid4().hex}"
        if isinstance(source, bytes):
            staged.write_bytes(source)
        else:
            shutil.copyfile(source, staged)
        fsync_path(staged)
        return staged

    def fetch(self, name: str, target: Path) -> str:
        with disk_errors(target), store_errors(self.place, name):
            shutil.copyfile(self._root / name, target)
        return digests_of(target).sha256

    def delete(self, name: str) -> None:
        path = self._root / name
        with store_errors(self.place, name):
            path.unlink(missing_ok=True)
            for parent in list(Path(name).parents)[:-1]:  # an empty folder is a version, or a model, to a server
                with suppress(OSError):
                    (self._root / parent).rmdir()

    def is_same(self, name: str, entry: Entry, file: Path, sha256: str) -> bool:
        with store_errors(self.place, name):
            return digests_of(self._root / name).sha256 == sha256


def _file_entry(path: Path) -> Entry:
    stat = path.stat()
    return Entry(stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}")
