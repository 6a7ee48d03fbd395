"""What a Python model imports, and the requirement that a module needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.steps.imports import (
    Import,
    import_of,
    left_standard_library,
    not_found,
    other_unavailable,
    requirement,
)

MODEL = """\
import json
import numpy as np
import google.protobuf
import helper
import sixish
from PIL import Image
import triton_python_backend_utils as pb_utils

try:
    import ujson
except ImportError:
    ujson = None

def execute():
    import cv2
    from . import neighbour
"""


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "helper.py").write_text("import yaml\n")
    vendored = tmp_path / "site-packages/sixish"
    vendored.mkdir(parents=True)
    (vendored / "__init__.py").write_text("import yaml, markupsafe\n")
    return tmp_path


@pytest.mark.parametrize(
    ("error", "module"),
    [
        ("Internal: ModuleNotFoundError: No module named 'google'", "google"),
        (
            "x: Failed to process the request(s): ModuleNotFoundError: No module named 'a.b'\n\nAt:\n  model.py(3)",
            "a.b",
        ),
        ("NameError: name 'google' is not defined", None),
    ],
    ids=["at load", "in a request", "another error"],
)
def test_the_module_that_was_not_found(error: str, module: str | None) -> None:
    assert not_found(error) == module


def test_a_module_that_left_the_standard_library() -> None:
    error = "ModuleNotFoundError: import of imp halted; None in sys.modules"
    assert (left_standard_library(error), not_found(error)) == ("imp", None)


@pytest.mark.parametrize(
    ("module", "found"),
    [
        ("google", Import("google.protobuf", "model.py", 3, True)),
        ("cv2", Import("cv2", "model.py", 15, False)),
        ("ujson", Import("ujson", "model.py", 10, False)),
        ("yaml", Import("yaml", "helper.py", 1, True)),
        ("markupsafe", Import("markupsafe", "site-packages/sixish/__init__.py", 1, True)),
        ("goog", None),
    ],
)
def test_the_statement_that_asks_for_it(version: Path, module: str, found: Import | None) -> None:
    assert import_of(version, module) == found


def test_a_file_that_is_not_python_is_passed_over(version: Path) -> None:
    (version / "broken.py").write_text("import (\n")
    assert import_of(version, "yaml") is not None


def test_what_else_a_file_needs_whenever_it_is_loaded(version: Path) -> None:
    assert other_unavailable(version, "model.py", "site-packages") == ["google.protobuf", "PIL"]


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("google.protobuf", "protobuf"),
        ("google.protobuf.message", "protobuf"),
        ("PIL", "pillow"),
        ("PIL.Image", "pillow"),
        ("cv2", "opencv-python-headless"),
        ("yaml", "pyyaml"),
        ("sklearn.svm", "scikit-learn"),
        ("onnxruntime", "onnxruntime"),
        ("typing_extensions", "typing-extensions"),
        ("no_such_module", "no-such-module"),
    ],
)
def test_the_distribution_of_a_module(module: str, distribution: str) -> None:
    assert requirement(module).partition("==")[0].lower().replace("_", "-") == distribution


def test_a_distribution_that_is_installed_here_is_named_with_its_version() -> None:
    import numpy

    assert requirement("numpy.linalg") == f"numpy=={numpy.__version__}"
    assert requirement("no_such_module") == "no-such-module"
