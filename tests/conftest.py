"""Real projects in temporary folders: tiny builders, built by the real engine.

Their steps run in this process, since starting workers costs more than the steps. A test about the workers sets
`sandbox.workers`, or runs the command in a process of its own.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import textwrap
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

from modelwright.build import build as engine
from modelwright.build.executor import Job
from modelwright.build.inline import InlineExecutor
from modelwright.build.outcome import Outcome
from modelwright.cli.main import main
from modelwright.cli.progress import Silent
from modelwright.digest import list_tree, sha256_file
from modelwright.progress import Tell
from modelwright.project.project import ProjectConfig, load
from modelwright.project.reader import read_builders
from modelwright.project.spec import Builder
from modelwright.repository.manifest import Manifest
from modelwright.repository.repository import Repository
from modelwright.triton.layout import LEDGER
from modelwright.variants.registry import LOOKUPS
from tests.needs import (  # the hooks of pytest, which looks for them here
    allowed,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_ignore_collect,
    pytest_runtest_setup,
)

__all__ = [
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_ignore_collect",
    "pytest_runtest_setup",
]

# How long an example takes says nothing where other programs run, too.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent

DATA_PY = """
import numpy as np


def samples():
    return {"x": np.arange(8, dtype=np.float32).reshape(4, 2)}


def evaluate(infer):
    answer = infer(samples())["y"]
    return {"accuracy": float(np.isclose(answer, samples()["x"] * 2, rtol=1e-2).mean())}
"""

ONNX_YAML = """
source: {kind: onnx, path: model.onnx}
samples: data:samples
evaluate: data:evaluate
gates: {accuracy: {min: 0.9}}
serving: {max_batch_size: 8}
"""

TORCH_YAML = """
source: {kind: torch, entry: train:train, params: {scale: 2.0}}
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
samples: data:samples
serving: {max_batch_size: 8}
"""

TRAIN_PY = """
import torch


class Scale(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor([scale]))

    def forward(self, x):
        return x * self.scale


def train(scale):
    return Scale(scale).eval()
"""

PYTHON_YAML = """
source: {kind: python}
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
samples: data:samples
reference: data:reference
serving: {max_batch_size: 8}
"""

PYTHON_DATA_PY = DATA_PY + "\n\ndef reference(samples):\n    return {'y': samples['x'] + 1}\n"

PYTHON_MODEL_PY = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x + 1)]))
        return answers
"""

ENSEMBLE_YAML = """
source:
  kind: ensemble
  steps:
    - {model_name: doubled, input_map: {x: x}, output_map: {y: middle}}
    - {model_name: plus_one, input_map: {x: middle}, output_map: {y: y}}
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
samples: data:samples
serving: {max_batch_size: 8}
"""


def doubling_onnx(
    path: Path, factor: float = 2.0, *, batch: str | int = "batch", width: int = 2, opset: int = 20, ir: int = 9
) -> None:
    """y = x * factor, float32 (batch, width)."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(np.array([factor], dtype=np.float32), "factor")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    onnx.save(model, path)


class TestExecutor(InlineExecutor):
    """Runs steps in this process, from what a worker would be sent, and with Python's own filter of warnings."""

    __test__ = False

    def submit(self, job: Job, tell: Tell) -> None:
        with warnings.catch_warnings():
            warnings.resetwarnings()
            super().submit(pickle.loads(pickle.dumps(job)), tell)


@dataclass
class Sandbox:
    """A project of its own."""

    root: Path
    workers: bool = False  # whether its steps run in worker processes

    @property
    def project(self) -> ProjectConfig:
        return load(self.root)

    @property
    def repository(self) -> Repository:
        return Repository.of(self.project)

    @property
    def builders(self) -> dict[str, Builder]:
        return read_builders(self.project, LOOKUPS).valid

    def write(self, model: str, **files: str) -> Path:
        """Files of a builder's folder; `model_yaml="…"` writes model.yaml."""
        folder = self.root / "builders" / model
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            stem, _, suffix = name.rpartition("_")
            (folder / f"{stem}.{suffix}").write_text(textwrap.dedent(text).lstrip())
        return folder

    def onnx_builder(self, model: str = "doubled", yaml: str = ONNX_YAML, factor: float = 2.0) -> Path:
        folder = self.write(model, model_yaml=yaml, data_py=DATA_PY)
        doubling_onnx(folder / "model.onnx", factor)
        return folder

    def torch_builder(self, model: str = "scaled", yaml: str = TORCH_YAML, train: str = TRAIN_PY) -> Path:
        return self.write(model, model_yaml=yaml, data_py=DATA_PY, train_py=train)

    def python_builder(self, model: str = "plus_one", yaml: str = PYTHON_YAML, code: str = PYTHON_MODEL_PY) -> Path:
        return self.write(model, model_yaml=yaml, data_py=PYTHON_DATA_PY, model_py=code)

    def ensemble_builder(self, model: str = "both", yaml: str = ENSEMBLE_YAML) -> Path:
        return self.write(model, model_yaml=yaml, data_py=DATA_PY)

    def doubled_versions(self, count: int, model: str = "doubled") -> None:
        """Versions 1, 2, … of the ONNX model, which differ in their weights."""
        for number in range(count):
            self.onnx_builder(model, factor=2 + number / 1024)
            assert self.build(model)[model].version == number + 1

    def widened(self, model: str = "doubled") -> None:
        """The next version of that model, which has other tensors: three numbers a row."""
        folder = self.write(model, data_py=DATA_PY.replace("arange(8", "arange(12").replace("(4, 2)", "(4, 3)"))
        doubling_onnx(folder / "model.onnx", width=3)
        assert self.build(model)[model].status == "new"

    def build(self, *names: str, listener: Silent | None = None) -> dict[str, Outcome]:
        start = None if self.workers else TestExecutor
        outcomes = engine.build(self.project, names, listener or Silent(), start_executor=start)
        return {outcome.model: outcome for outcome in outcomes}

    def cli(self, *arguments: str, folder: Path | None = None) -> Result:
        """What a command does that is typed in the project's folder, or in another one."""
        pool = engine._worker_pool if self.workers else lambda _: TestExecutor()
        before = Path.cwd()
        os.chdir(folder or self.root)
        try:
            with mock.patch.object(engine, "_worker_pool", pool):
                return CliRunner().invoke(main, ["--project", str(self.root), *arguments])
        finally:
            os.chdir(before)

    def error(self, *arguments: str, may_publish: Collection[str] = ()) -> str:
        """The message of a command that must fail with exit code 1 and publish nothing but of the models named."""

        def published() -> dict[str, str]:
            return {name: file for name, file in self.published().items() if name.partition("/")[0] not in may_publish}

        before = published()
        result = self.cli(*(arguments or ("build",)))
        assert result.exit_code == 1, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert published() == before
        return result.output

    def published(self) -> dict[str, str]:
        """Every file that a server would see, with its digest."""
        root = self.root / "model_repository"
        return {name: sha256_file(path) for name, path in list_tree(root).items() if name != LEDGER}

    def manifest(self, model: str, version: int = 1) -> Manifest:
        manifest = self.repository.manifest(model, version)
        assert manifest is not None
        return manifest

    def config(self, model: str) -> str:
        return (self.root / "model_repository" / model / "config.pbtxt").read_text()


def new_sandbox(root: Path) -> Sandbox:
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "modelwright.toml", root)
    shutil.copytree(ROOT / "templates", root / "templates")
    (root / "builders").mkdir()
    (root / ".modelwright").mkdir()
    server = root / ".modelwright" / "server"
    if allowed("server"):
        # The server's environment is the same for all: made once, in this checkout.
        (ROOT / ".modelwright" / "server").mkdir(parents=True, exist_ok=True)
        server.symlink_to(ROOT / ".modelwright" / "server")
    else:
        server.write_text("This test has no mark 'server': where the environment would be made there is a file.")
    return Sandbox(root.resolve())


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return new_sandbox(tmp_path / "project")


@pytest.fixture(scope="session")
def sandbox_factory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Sandbox]:
    return lambda: new_sandbox(tmp_path_factory.mktemp("project") / "project")


def default_sigint() -> None:
    """For `preexec_fn`: a test run in the background of a script has SIGINT ignored, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Recorder(Silent):
    """Which steps ran."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.reasons: dict[tuple[str, str], str] = {}

    def started(self, step: Any, reason: str) -> None:
        self.ran.append(step.id)
        self.reasons[step.id] = reason
