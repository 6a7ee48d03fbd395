from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.server.environment import Environment
from modelwright.server.local import RunningServer, running
from modelwright.triton.client import Client, connect
from tests.server.models import shared_environment


@pytest.fixture(scope="session")
def environment() -> Environment:
    return shared_environment()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the shared `server`: a test publishes a model of its own there, and loads it."""
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="session")
def server(environment: Environment, repository: Path) -> Iterator[RunningServer]:
    with running(environment, repository, log=repository.parent / "server.log", stop_grace_s=0) as server:
        yield server


@pytest.fixture(scope="session")
def completing_server(environment: Environment, repository: Path) -> Iterator[RunningServer]:
    """The same repository, served with auto-completion."""
    log = repository.parent / "completing.log"
    with running(environment, repository, log=log, stop_grace_s=0, auto_complete=True) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with connect(server.http) as client:
        yield client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model's name that no other test uses."""
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name).lower()
