"""The example that trains on photographs: the whole way, with a few of them, for one epoch."""

from __future__ import annotations

import os
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from modelwright.server.local import running
from tests.conftest import ROOT
from tests.models import project as models
from tests.server.models import shared_environment

pytestmark = [pytest.mark.models, pytest.mark.server, pytest.mark.torch]

_EXAMPLE = ROOT / "examples/solar_cells"
_DATA_SET = models.PACKAGES / "elpv_dataset"
_CHANGES = {
    "data.py": {"_GOLDEN = 8": "_GOLDEN = 2"},
    "model.yaml": {
        "epochs: 60, folds: 5, fold_epochs: 25": "epochs: 1, folds: 2, fold_epochs: 1",
        "min: 0.824": "min: 0.0",
        "max: 0.7": "max: 9.0",
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example with each twentieth photograph. Of the packages beside it only the data set is to be found."""
    if not _DATA_SET.is_dir():
        pytest.skip("elpv-dataset is not installed: make test-models")
    monkeypatch.setenv("PYTHONPATH", str(_few_photographs(tmp_path / "packages")), prepend=os.pathsep)
    project = tmp_path / "solar_cells"
    shutil.copytree(_EXAMPLE, project, ignore=shutil.ignore_patterns(".modelwright", "model_*", "__pycache__"))
    (project / "modelwright.toml").write_text((_EXAMPLE / "modelwright.toml").read_text().partition("[tracking]")[0])
    for name, changes in _CHANGES.items():
        file = project / "builders/solar_cells" / name
        text = file.read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        file.write_text(text)
    return project


def _few_photographs(packages: Path) -> Path:
    """The package of the data set, with each twentieth photograph: to read them all takes seconds, in three steps."""
    package = packages / "elpv_dataset"
    shutil.copytree(_DATA_SET, package, ignore=shutil.ignore_patterns("data"))
    (package / "data").mkdir()
    (package / "data/images").symlink_to(_DATA_SET / "data/images")
    lines = (_DATA_SET / "data/labels.csv").read_text().splitlines(keepends=True)
    (package / "data/labels.csv").write_text("".join(lines[::20]))
    return packages


def test_solar_cells_is_trained_and_a_photograph_gets_a_class_and_a_probability(project: Path) -> None:
    outcome = models.build(project, packages=False)["solar_cells"]
    assert outcome["status"] == "new", outcome["error"]
    spec = spec_from_file_location("ask", project / "ask.py")
    assert spec is not None
    assert spec.loader is not None
    client = module_from_spec(spec)
    spec.loader.exec_module(client)
    with running(shared_environment(), project / "model_repository", log=project / "log", models=["*"]) as server:
        name, probability = client.ask(next((_DATA_SET / "data/images").iterdir()), "solar_cells", server.http)
    assert name in ("functional", "defective")
    assert 0.5 <= probability <= 1
