"""An S3 server for the tests of remotes, and repositories to push to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelwright.remotes.place import place_of
from modelwright.remotes.store import file_system_of
from tests.remotes.buckets import Bucket
from tests.remotes.repositories import MadeRepository
from tests.remotes.s3 import BUCKET, CREDENTIALS, Proxy, ask, moto


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Proxy]:
    with moto() as port, Proxy(port) as proxy:
        ask(port, "PUT", f"/{BUCKET}")
        yield proxy


@pytest.fixture(scope="session")
def s3_files(s3_server: Proxy) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        made = file_system_of(place_of(f"s3://http://127.0.0.1:{s3_server.port}/{BUCKET}"))
        made.ls(BUCKET)
    return made


@pytest.fixture
def bucket(
    s3_server: Proxy, s3_files: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bucket]:
    """A prefix of its own, and a proxy without faults."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    s3_server.reset()
    s3_server.problems.clear()
    yield Bucket(s3_server, f"{re.sub('[^a-z0-9]+', '-', request.node.name.lower())}/models", s3_files)
    s3_server.reset()
    assert s3_server.problems == []


@pytest.fixture
def made(tmp_path: Path) -> MadeRepository:
    return MadeRepository(tmp_path / "project")
