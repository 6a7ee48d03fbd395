"""What is started once for all tests of load tests: a Triton server, a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.server.environment import Environment, unsupported_reason
from modelwright.server.local import RunningServer, running
from modelwright.triton.client import Client, connect
from tests.loadtest.browser import CHROMIUM, Browser, started
from tests.loadtest.models import MODELS, write_models
from tests.server.models import shared_environment


@pytest.fixture(scope="session")
def environment() -> Environment:
    """For `server`, and for tests of commands that start a server of their own."""
    reason = unsupported_reason()
    if reason is not None:
        pytest.skip(f"no local server: {reason}")
    return shared_environment()


@pytest.fixture(scope="session")
def server(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The real server with all of `models.MODELS`, and `unloaded`, which is in the repository and not served."""
    repository: Path = write_models(tmp_path_factory.mktemp("loadtest") / "repository")
    (repository / "unloaded" / "1").mkdir(parents=True)
    (repository / "unloaded" / "config.pbtxt").write_text('backend: "python"')
    log = repository.parent / "server.log"
    with running(environment, repository, log=log, models=MODELS, stop_grace_s=0) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of `server`: a test that takes it runs once over each protocol."""
    with connect(f"{request.param}://{getattr(server, request.param)}", timeout_s=20) as client:
        yield client


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with started(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
