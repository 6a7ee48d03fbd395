"""Real models at the first try: built by builders as a user would write them, served, and held against plain onnxruntime.

The models are those of PyPI packages, of the converters of scikit-learn, XGBoost and LightGBM, and of torchvision and
timm with random weights. Nothing of Modelwright stands between the server and the comparison.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.projects import empty_project
from modelwright.server.local import RunningServer, running
from tests.models import project as models
from tests.server.models import shared_environment

pytestmark = [
    pytest.mark.models,
    pytest.mark.server,
    pytest.mark.torch,
    pytest.mark.timeout(1800),  # the first one builds them all
]

Arrays = dict[str, "np.ndarray[Any, Any]"]
_MODELWRIGHT = (sys.executable, "-m", "modelwright.cli.main")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of all of them."""
    if not (models.PACKAGES / ".built").is_file():
        pytest.skip("the packages of the models are not installed: make test-models")
    root = empty_project(tmp_path_factory.mktemp("models") / "project")
    models.write_builders(root)
    return root


@pytest.fixture(scope="module")
def outcomes(root: Path) -> dict[str, Any]:
    """What `modelwright build --json` says of each."""
    done = models.started(*_MODELWRIGHT, "--project", str(root), "build", "--json")
    assert done.returncode in (0, 1), done.stderr
    return {outcome["model"]: outcome for outcome in json.loads(done.stdout)["models"]}


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
    import onnxruntime

    model = root / "model_repository" / name
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    batched = "max_batch_size:" in (model / "config.pbtxt").read_text()
    for sample in samples(root / "builders" / name):
        request = {key: array[None] for key, array in sample.items()} if batched else sample
        expected = plain_answer(session, request)
        for protocol in ("http", "grpc"):
            answer = served_answer(server, protocol, name, request)
            assert answer.keys() == expected.keys()
            for output, wanted in expected.items():
                compare(answer[output], wanted, f"{name}: {output} over {protocol}")


def samples(builder: Path) -> list[Arrays]:
    """What data.py gives, one by one."""
    with _importable(builder):
        columns: Mapping[str, Any] = importlib.import_module("data").samples()
    count = len(next(iter(columns.values())))
    return [{name: np.asarray(column[index]) for name, column in columns.items()} for index in range(count)]


@contextmanager
def _importable(builder: Path) -> Iterator[None]:
    """The modules of a builder, and the packages, for the length of a `with` block."""
    path, folder = list(sys.path), Path.cwd()
    sys.path[:0] = [str(builder), str(models.PACKAGES)]
    os.chdir(builder)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path
        for name in ("data", "convert"):
            sys.modules.pop(name, None)


def plain_answer(session: Any, request: Arrays) -> Arrays:
    """Of onnxruntime itself."""
    ranks = {node.name: len(node.shape) for node in session.get_inputs()}
    feed = {name: array.reshape(()) if ranks[name] == 0 else array for name, array in request.items()}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def served_answer(server: RunningServer, protocol: str, name: str, request: Arrays) -> Arrays:
    """Of the server, to NVIDIA's own client."""
    library = importlib.import_module(f"tritonclient.{protocol}")
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for key, given in request.items():
        array = given.reshape(1) if given.ndim == 0 else given  # Triton has no scalars
        tensor = library.InferInput(key, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    client = library.InferenceServerClient(server.http if protocol == "http" else server.grpc)
    result = client.infer(name, tensors)
    response = result.get_response()
    names = [o.name for o in response.outputs] if protocol == "grpc" else [o["name"] for o in response["outputs"]]
    client.close()
    return {key: result.as_numpy(key) for key in names}


def compare(answer: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], where: str) -> None:
    """Both come from the same onnxruntime on the same machine. A row's one value is served as [1]."""
    assert answer.shape in (expected.shape, (*expected.shape, 1)), where
    answer = answer.reshape(expected.shape)
    if expected.dtype == object:
        assert [item.decode() for item in answer.ravel()] == expected.ravel().tolist(), where
    else:
        assert answer.dtype == expected.dtype, where
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6, err_msg=where)
