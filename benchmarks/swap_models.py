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
from modelwright.project.project import ProjectConfig
from modelwright.project.project import load as load_project
from modelwright.repository.manifest import read
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
    """A project with version 1 of each model; what the versions after it hold lies beside the repository."""
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
    for model in models:
        _aside(config, model).parent.mkdir(exist_ok=True)
        (config.repository / model / "2").rename(_aside(config, model))
        first, second = (_golden(folder) for folder in (config.repository / model / "1", _aside(config, model)))
        alike = [n for n, answer in enumerate(second.answers) if not difference(first, n, answer)]
        if alike:
            raise RuntimeError(
                f"{model}: both versions give one answer to {len(alike)} payloads: they cannot be told apart"
            )
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


def _aside(config: ProjectConfig, model: str) -> Path:
    return config.state / "aside" / model


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
        self._repository = Repository(config.repository, config.staging)
        self._gone = config.state / "gone" / model
        self._aside = _aside(config, model)
        template = read(self._aside / MANIFEST)
        assert template
        self._template = template
        self._number = 1

    def publish(self) -> int:
        """The second weights under a new number."""
        self._number = self._repository.reserve([self.model])[self.model]
        files = {name: self._aside / name for name in self._template.files}
        manifest = self._template.model_copy(update={"version": self._number})
        self._repository.publish(Change(self.model, self._number, files, manifest))
        return self._number

    def roll_back(self) -> int:
        """To version 1."""
        self._gone.mkdir(parents=True, exist_ok=True)
        self._repository.folder(self.model, self._number).rename(self._gone / str(self._number))
        return 1

    def golden(self, version: int) -> Golden | None:
        """None for a version that was not published."""
        if not 1 <= version <= self._repository.ledger()[self.model]:
            return None
        return _golden(self._repository.folder(self.model, 1) if version == 1 else self._aside)
