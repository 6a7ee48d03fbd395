"""The builders that ship, from this checkout, through stock clients of a real tritonserver."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.project.project import load
from modelwright.repository.repository import Repository
from modelwright.server.environment import ensure
from modelwright.server.local import RunningServer, running
from tests.conftest import ROOT

pytestmark = [pytest.mark.server, pytest.mark.torch]
PROTOCOLS = ("http", "grpc")


@pytest.fixture(scope="module")
def repository() -> Repository:
    """Built here if it is not yet, as `make repo` does it."""
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", str(ROOT), "build", "--locked", "--replay"]
    command += ["--wait"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    project = load(ROOT)
    return Repository.of(project)


@pytest.fixture(scope="module")
def server(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    project = load(ROOT)
    environment = ensure(project.server, project.target, lambda text: None)
    log = tmp_path_factory.mktemp("server") / "log"
    with running(environment, repository.root, log=log, models=["*"], stop_grace_s=0) as server:
        assert server.failures() == {}
        yield server


def builder_module(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("builder_" + Path(path).stem, ROOT / "builders" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def infer(
    server: RunningServer,
    protocol: str,
    model: str,
    name: str,
    array: np.ndarray[Any, Any],
    output: str,
    classes: int = 0,
) -> np.ndarray[Any, Any]:
    """One request with NVIDIA's own client, nothing of ours in between."""
    library = importlib.import_module(f"tritonclient.{protocol}")
    dtype = "BYTES" if array.dtype == object else "FP32"
    tensor = library.InferInput(name, list(array.shape), dtype)
    tensor.set_data_from_numpy(array)
    wanted = library.InferRequestedOutput(output, class_count=classes)
    client = library.InferenceServerClient(server.http if protocol == "http" else server.grpc)
    answer = client.infer(model, [tensor], outputs=[wanted]).as_numpy(output)
    client.close()
    result: np.ndarray[Any, Any] = answer
    return result


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_digits_answers_with_names(server: RunningServer, protocol: str) -> None:
    data = builder_module("digits/data.py")
    _, images, _, labels = data.split()
    names = (ROOT / "builders/digits/labels.txt").read_text().split()
    answer = infer(server, protocol, "digits", "image", images[:64], "logits", classes=1)
    found = [row[0].decode().split(":")[2] for row in answer]
    right = sum(name == names[label] for name, label in zip(found, labels[:64], strict=True))
    assert right >= 62


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_minilm_text_agrees_with_sentence_transformers_on_100_sentences(server: RunningServer, protocol: str) -> None:
    data = builder_module("minilm_text/data.py")
    assert len(data.sentences()) == 100
    assert {"", " "} <= set(data.sentences())

    def ask(inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        return {"embedding": infer(server, protocol, "minilm_text", "text", inputs["text"], "embedding")}

    metrics = data.evaluate(ask)
    assert metrics["cosine_min"] >= 0.9999
    one = infer(server, protocol, "minilm_text", "text", np.array([[b"A dog."]], dtype=object), "embedding")
    assert one.shape == (1, 384)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_wine_answers_with_the_grower_and_its_probability(server: RunningServer, protocol: str) -> None:
    _, measurements, _, growers = builder_module("wine/data.py").split()
    rows = measurements.astype(np.float32)
    found = infer(server, protocol, "wine", "measurements", rows, "grower")
    assert found.shape == (len(rows), 1)
    assert [name.decode() for name in found.ravel()] == growers.tolist()
    best = infer(server, protocol, "wine", "measurements", rows, "probabilities", classes=1)
    assert [row[0].decode().split(":")[2] for row in best] == growers.tolist()


@pytest.mark.parametrize(("model", "least"), [("wine", 0.95), ("boosted", 0.95)])
def test_a_tabular_model_answered_ten_thousand_rows_as_its_library(
    repository: Repository, model: str, least: float
) -> None:
    latest = repository.latest(model)
    assert latest is not None
    compared: Any = latest[1].made.details["compared"]
    assert compared["rows"] >= 10_000
    assert compared["ties"] == 0
    assert compared["largest_difference"]["probabilities"] <= 1e-5
    assert latest[1].metrics["accuracy"] >= least


def test_digits_passed_its_gate(repository: Repository) -> None:
    latest = repository.latest("digits")
    assert latest is not None
    assert latest[1].metrics["accuracy"] >= 0.98
    assert latest[1].verification.max_abs_error["logits"] < 1e-4


def test_the_tokeniser_needs_nothing_installed_in_the_container(repository: Repository) -> None:
    latest = repository.latest("minilm_tokenizer")
    assert latest is not None
    folder = repository.folder("minilm_tokenizer", latest[0])
    libraries = [path.name for path in folder.rglob("*.so")]
    assert libraries
    assert all("abi3" in name or "cpython-312-x86_64" in name for name in libraries)


def test_infer_prints_the_top_classes_with_labels(server: RunningServer) -> None:
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", str(ROOT), "infer", "digits"]
    url = ["--url", f"http://{server.http}"]
    done = subprocess.run([*command, *url], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "digits logits:"
    assert len(lines) == 4
    names = (ROOT / "builders/digits/labels.txt").read_text().split()
    assert lines[1].split()[0] in names
    answer = json.loads(subprocess.run([*command, *url, "--json"], capture_output=True, text=True, check=True).stdout)
    assert [item["label"] for item in answer["classes"]["logits"]] == [line.split()[0] for line in lines[1:]]


def test_a_second_build_does_nothing_and_says_so(repository: Repository) -> None:
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", str(ROOT), "build", "--replay"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Nothing to do: 6 models up to date in model_repository.\n")
    assert done.stderr == ""
