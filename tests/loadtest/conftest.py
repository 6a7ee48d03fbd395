from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.server.environment import unsupported_reason
from modelwright.server.local import RunningServer, running
from modelwright.triton.client import Client, connect
from tests.loadtest.models import MODELS, write_models
from tests.server.models import shared_environment


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The real server with all of `models.MODELS`, and `unloaded`, which is in the repository and not served."""
    reason = unsupported_reason()
    if reason is not None:
        pytest.skip(f"no local server: {reason}")
    repository: Path = write_models(tmp_path_factory.mktemp("loadtest") / "repository")
    (repository / "unloaded" / "1").mkdir(parents=True)
    (repository / "unloaded" / "config.pbtxt").write_text('backend: "python"')
    log = repository.parent / "server.log"
    with running(shared_environment(), repository, log=log, models=MODELS, stop_grace_s=0) as server:
        yield server


@pytest.fixture(params=["http", "grpc"])
def client(server: RunningServer, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of `server`: a test that takes it runs once over each protocol."""
    with connect(f"{request.param}://{getattr(server, request.param)}", timeout_s=20) as client:
        yield client
