"""What a build says where a model of a trial does not find what it imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelwright.kinds.step import StepFunction
from modelwright.project.reader import read_builder
from modelwright.steps.advice import advice
from modelwright.steps.context import ServedModel, StepContext
from modelwright.triton.releases import release
from modelwright.variants.registry import LOOKUPS
from tests.conftest import PYTHON_YAML

MISSING = "Internal: ModuleNotFoundError: No module named '{}'"
HERE = "3.11.7"


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    """An ensemble's trial, say: the model `m` under test, and `other`, which it runs, and which vendors something."""
    folder, version, other = tmp_path / "m", tmp_path / "version", tmp_path / "other"
    for path in (folder, version, other / "site-packages/fast"):
        path.mkdir(parents=True)
    (folder / "model.yaml").write_text(PYTHON_YAML)
    (folder / "helper.py").touch()
    (version / "model.py").write_text("import helper\nimport imp\nfrom google import protobuf\n")
    (other / "model.py").write_text("")
    (other / "builder_model.py").write_text("import fast\nimport yaml\n")
    (other / "site-packages/fast/__init__.py").write_text("import fast._core\nimport absent_package\n")
    (other / "site-packages/fast/_core.cpython-312-x86_64-linux-gnu.so").touch()
    fields: dict[str, Any] = dict.fromkeys(("server", "wheels"), tmp_path)
    return StepContext(
        builder=read_builder(folder, "builders/m/model.yaml", LOOKUPS),
        function=StepFunction("verify_served", "x:y"),
        config={},
        target=release("26.07"),
        inputs={},
        declared=frozenset(),
        served=(ServedModel("m", "", {1: version}), ServedModel("other", "", {1: other})),
        **fields,
    )


def test_a_package(context: StepContext) -> None:
    message, hint = advice(context, MISSING.format("google"), HERE)
    assert message == "model.py line 3 imports google.protobuf, which the stock container of Triton 26.07 does not have"
    assert hint.startswith("add to source.requirements in builders/m/model.yaml: protobuf==")
    assert hint.endswith(" (the container has the standard library of Python 3.12 and numpy 1.26.4)")


def test_a_package_that_another_model_of_the_trial_needs(context: StepContext) -> None:
    message, hint = advice(context, MISSING.format("yaml"), HERE)
    assert message.startswith("other: model.py line 2 imports yaml, which ")
    assert hint.startswith("add to source.requirements in the model.yaml of other: pyyaml==")


def test_a_package_that_a_vendored_one_needs(context: StepContext) -> None:
    message, hint = advice(context, MISSING.format("absent_package"), HERE)
    assert message.startswith("other: site-packages/fast/__init__.py line 2 imports absent_package, which ")
    assert ": absent-package (" in hint


def test_a_file_of_the_builder(context: StepContext) -> None:
    hint = advice(context, MISSING.format("helper"), HERE)[1]
    assert hint == "name the file in builders/m/model.yaml: source: files: {helper.py: helper.py}"


def test_a_module_that_is_imported_by_a_name_made_at_run_time(context: StepContext) -> None:
    message, hint = advice(context, MISSING.format("somewhere"), HERE)
    assert message == "a Python model imports somewhere, which the stock container of Triton 26.07 does not have"
    assert hint == "vendor it: source.requirements"


def test_a_module_that_the_container_s_python_has_lost(context: StepContext) -> None:
    error = "Internal: ModuleNotFoundError: import of imp halted; None in sys.modules"
    assert (
        advice(context, error, HERE)[0]
        == "a Python model imports imp, which Python 3.12, the container's, no longer has"
    )


@pytest.mark.parametrize(
    "error",
    [
        MISSING.format("fast._core"),
        "Internal: ImportError: cannot import name '_core' from partially initialized module 'fast'",
    ],
)
def test_an_extension_module_for_another_python_than_the_one_here(context: StepContext, error: str) -> None:
    message, hint = advice(context, error, HERE)
    assert message == ""  # the server's own says more
    assert hint.startswith(
        "fast/_core.cpython-312-x86_64-linux-gnu.so is for the target's Python 3.12, the local server"
    )
    assert advice(context, "Internal: ValueError: no", HERE) == ("", "")
