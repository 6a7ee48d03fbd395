"""s3://, gs:// and az:// URIs, by fsspec's libraries, which find credentials as the stores' own do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from modelwright.errors import RemoteError, StepError
from modelwright.remotes.faults import is_missing_bucket, store_errors
from modelwright.remotes.place import RemotePlace, place_of
from modelwright.remotes.store import file_system_of
from modelwright.steps.sources.source import CHUNK, RemoteSource

_BLOCK = 8 << 20  # that is asked for at a time


def open_objects(uri: str) -> RemoteSource:
    """Raises RemoteError for a store that does not answer, StepError for what is not in it."""
    place = place_of(uri)
    with store_errors(place):
        file_system = file_system_of(place)
    return _ObjectSource(uri, place, file_system)


class _ObjectSource(RemoteSource):
    def __init__(self, uri: str, place: RemotePlace, file_system: Any) -> None:
        self.resolved = uri
        self._place, self._fs = place, file_system
        info = self._info()
        self.is_folder = info["type"] == "directory"
        if not self.is_folder:  # of which messages name what lies in it
            self._place = replace(place, url=place.url.rpartition("/")[0], root=place.root.rpartition("/")[0])
        self._root, self._name = self._place.root, place.root.rpartition("/")[2]
        self._size = int(info.get("size") or 0)

    def _info(self) -> dict[str, Any]:
        with store_errors(self._place):
            try:
                found: dict[str, Any] = self._fs.info(self._place.root)
                if found["type"] != "directory" or self._fs.ls(self._place.root):
                    return found
            except FileNotFoundError as error:
                if is_missing_bucket(error):
                    raise
            self._fs.ls(self._place.bucket)  # a bucket that is not there is a fault of its own
        raise StepError(
            f"{self.resolved}: there is nothing under this name", "see to the URI; names of objects have no wildcards"
        )

    def files(self) -> dict[str, int]:
        if not self.is_folder:
            return {self._name: self._size}
        with store_errors(self._place):
            found = self._fs.find(self._root, detail=True)
        start = f"{self._root}/"
        return {
            path[len(start) :]: int(info["size"] or 0)
            for path, info in found.items()
            if path.startswith(start) and not path.endswith("/") and info.get("type") != "directory"
        }

    @contextmanager
    def read(self, name: str, offset: int = 0) -> Iterator[Iterator[bytes]]:
        try:
            with (
                store_errors(self._place, name),
                self._fs.open(f"{self._root}/{name}", "rb", block_size=_BLOCK) as file,
            ):
                file.seek(offset)
                yield iter(lambda: file.read(CHUNK), b"")
        except RemoteError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise StepError(f"{self.resolved}: there is no object '{name}' any more", "see to the store") from None
            raise
