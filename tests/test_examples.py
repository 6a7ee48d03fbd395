"""The projects below examples/ are read and planned without what they learn from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_the_example_of_solar_cells_is_planned_without_its_data(tmp_path: Path) -> None:
    """In a process where importing the data set is an error."""
    project = tmp_path / "solar_cells"
    shutil.copytree(ROOT / "examples/solar_cells", project, ignore=shutil.ignore_patterns(".modelwright", "model_*"))
    code = (
        "import sys; sys.modules['elpv_dataset'] = None;"
        "from modelwright.cli.main import main;"
        f"main(['--project', {str(project)!r}, 'plan', '--all', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    models = {(step["model"], step["step"]) for step in json.loads(done.stdout)}
    assert {("solar_cells", "torch"), ("solar_cells", "verify"), ("solar_cells_int8", "quantise")} <= models
