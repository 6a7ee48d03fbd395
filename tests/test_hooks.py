"""What other repositories take from this one: the hook of pre-commit. tests/test_wheel.py has the GitHub action."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT

MANIFEST = ROOT / ".pre-commit-hooks.yaml"


def test_pre_commit_takes_the_manifest() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", str(MANIFEST)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("models/a/config.pbtxt", True),
        ("models/a/configs/gpu.pbtxt", True),
        ("models/a/1/model.onnx", True),
        ("a/12/model.savedmodel/saved_model.pb", True),
        ("a/labels.txt", True),
        ("a/warmup/image", True),
        ("modelwright.toml", True),
        ("README.md", False),
        ("src/app.py", False),
        ("docs/v1/page.md", False),
    ],
)
def test_the_hook_starts_for_files_of_a_model_repository(name: str, starts: bool) -> None:
    (hook,) = yaml.safe_load(MANIFEST.read_text())
    assert bool(re.search(hook["files"], name)) == starts
