"""Models whose versions are swapped: each has two sets of weights, and every answer tells which of them gave it.

Version 1 has the first weights and stays. The others have the second ones and come and go, each under a new number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from benchmarks import projects, timing
from benchmarks.load_client import Golden, difference
from modelwright.build.build import LOCK
from modelwright.fsops import locked
from modelwright.project.project import ProjectConfig
from modelwright.project.project import load as load_project
from modelwright.repository.manifest import read
from modelwright.repository.move import carry_out
from modelwright.repository.moves import rollback
from modelwright.repository.repository import Change, Repository
from modelwright.triton.layout import MANIFEST
from modelwright.verification.golden import load_golden

_DATA = """\
import numpy as np


def samples():
    return {"x": np.random.default_rng(1).standard_normal((64, 4), dtype=np.float32)}
"""
_SPEC = {"source": {"kind": "onnx", "path": "model.onnx"}, "samples": "data:samples", "serving": {"max_batch_size": 8}}


def project(root: Path, models: Sequence[str]) -> ProjectConfig:
    """A project with version 1 of each model, and version 2 retired: what the versions after it hold."""
    projects.shipped_project(root, ["digits"] if "digits" in models else ["none"])
    projects.take_store(root)
    if "product" in models:
        _write_product(root, 2.0)
    timing.build(root)
    projects.settle()
    if "product" in models:
        _write_product(root, 3.0)
    if "digits" in models:
        _retrain_digits(root)
    timing.build(root)
    config = load_project(root)
    repository = Repository.of(config)
    for model in models:
        carry_out(repository, rollback(repository, model), why="the benchmark begins with version 1")
        first, second = (_golden(folder) for folder in (repository.folder(model, 1), _second(repository, model)))
        alike = [n for n, answer in enumerate(second.answers) if not difference(first, n, answer)]
        if alike:
            raise RuntimeError(f"{model}: both versions answer {len(alike)} payloads alike: they cannot be told apart")
    return config


def _write_product(root: Path, factor: float) -> None:
    """y = x · factor."""
    folder = root / "builders" / "product"
    folder.mkdir(exist_ok=True)
    (folder / "model.yaml").write_text(yaml.safe_dump(_SPEC))
    (folder / "data.py").write_text(_DATA)
    projects.save_product(folder / "model.onnx", factor, 4)


def _retrain_digits(root: Path) -> None:
    path = root / "builders" / "digits" / "model.yaml"
    spec = yaml.safe_load(path.read_text())
    spec["source"].setdefault("params", {})["seed"] = 12345
    path.write_text(yaml.safe_dump(spec))


def _second(repository: Repository, model: str) -> Path:
    return repository.retired_folder(model, 2)


@cache
def _golden(folder: Path) -> Golden:
    manifest = read(folder / MANIFEST)
    assert manifest
    assert manifest.verification.golden
    outputs = load_golden(folder / "golden.npz")[1]
    answers = [{name: array[None] for name, array in sample.items()} for sample in outputs]
    return Golden(answers, manifest.verification.golden.tolerance)


class Swapped:
    """One model of the project: version 1, and for a while a version after it."""

    def __init__(self, config: ProjectConfig, model: str) -> None:
        self.model = model
        self._repository = Repository.of(config)
        self._lock = config.state / LOCK
        manifest = self._repository.retired_manifest(model, 2)
        assert manifest
        self._manifest = manifest

    def publish(self) -> int:
        """The second weights under a new number."""
        folder = _second(self._repository, self.model)
        with locked(self._lock, "the benchmark", wait=False):
            number = self._repository.reserve([self.model])[self.model]
            files = {name: folder / name for name in self._manifest.files}
            manifest = self._manifest.model_copy(update={"version": number})
            self._repository.journal.append("publish", self.model, number)
            self._repository.publish(Change(self.model, number, files, manifest))
        return number

    def roll_back(self) -> int:
        """To version 1."""
        with locked(self._lock, "the benchmark", wait=False):
            carry_out(self._repository, rollback(self._repository, self.model, 1))
        return 1

    def golden(self, version: int) -> Golden | None:
        """None for a version that was not published."""
        if not 1 <= version <= self._repository.ledger().versions[self.model]:
            return None
        return _golden(
            self._repository.folder(self.model, 1) if version == 1 else _second(self._repository, self.model)
        )
