"""A prefix of a bucket, as a store and as what lies there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from modelwright.remotes.place import RemotePlace, place_of
from modelwright.remotes.store import ObjectStore, RemoteStore, open_store
from tests.remotes.repositories import served_there, unready
from tests.remotes.s3 import BUCKET, Proxy, ask


@dataclass
class Bucket:
    """A prefix of a bucket. Requests of stores go through the proxy; what is asked here goes to the server itself."""

    proxy: Proxy
    prefix: str
    file_system: Any

    @property
    def url(self) -> str:
        return f"s3://http://127.0.0.1:{self.proxy.port}/{BUCKET}/{self.prefix}"

    @property
    def place(self) -> RemotePlace:
        return place_of(self.url)

    @property
    def store(self) -> RemoteStore:
        """As all tests share it: to make one takes half a second."""
        return ObjectStore(self.place, self.file_system)

    def new_store(self) -> RemoteStore:
        return open_store(self.place)

    def objects(self) -> dict[str, int]:
        """Names below the prefix, and sizes."""
        status, body = ask(
            self.proxy.server, "GET", f"/{BUCKET}?list-type=2&max-keys=1000&prefix={quote(self.prefix + '/')}"
        )
        assert status == 200
        found = {}
        for item in ElementTree.fromstring(re.sub(b' xmlns="[^"]+"', b"", body)).iter("Contents"):
            found[unquote(item.findtext("Key") or "")[len(self.prefix) + 1 :]] = int(item.findtext("Size") or 0)
        return found

    def read(self, name: str) -> bytes:
        status, body = ask(self.proxy.server, "GET", f"/{BUCKET}/{quote(f'{self.prefix}/{name}')}")
        assert status == 200, name
        return body

    def write(self, name: str, data: bytes) -> None:
        status, _ = ask(self.proxy.server, "PUT", f"/{BUCKET}/{quote(f'{self.prefix}/{name}')}", data)
        assert status == 200

    def remove(self, name: str) -> None:
        ask(self.proxy.server, "DELETE", f"/{BUCKET}/{quote(f'{self.prefix}/{name}')}")

    def unready(self) -> list[str]:
        return unready(self.objects(), self.read)

    def served(self) -> dict[str, list[int]]:
        return served_there(self.objects(), self.read)
