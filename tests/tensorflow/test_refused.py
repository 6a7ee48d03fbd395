"""Models of TensorFlow that cannot be built: each says what is wrong with it, and nothing of it is published."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from modelwright.build.outcome import Outcome
from tests.conftest import Sandbox
from tests.tensorflow.conftest import STATE
from tests.tensorflow.test_built import ROWS

pytestmark = pytest.mark.tensorflow

# builder: (what its source says, what lies in its folder)
SOURCES = {
    "several": ("{kind: tensorflow, path: two}", "two"),
    "misspelt": ("{kind: tensorflow, path: two, signature: scorse}", "two"),
    "bessel": ("{kind: tensorflow, path: bessel}", "bessel"),
    "damaged": ("{kind: tensorflow, path: words}", "words"),
    "own": ("{kind: keras, path: own.keras}", "own.keras"),
    "untrusted": ("{kind: keras, path: lambda.keras}", "lambda.keras"),
    "trusted": ("{kind: keras, path: lambda.keras, trusted: true}", "lambda.keras"),
    "declared": (
        "{kind: tensorflow, path: two, signature: scores}\ninputs: [{name: lines, dtype: FP32, shape: [4]}]",
        "two",
    ),
}
REASONS = {
    "several": "has 2 signatures: add (left, right → sum); scores (rows → best, scores)\n  hint: choose one: source.signature: add",
    "misspelt": "has no signature 'scorse', only add, scores\n  hint: did you mean 'scores'?",
    "bessel": "tf2onnx cannot convert BesselI0, BesselJ0\n  hint: move what uses them out of the served function",
    "damaged": "saved_model.pb is damaged, or no SavedModel\n  hint: copy the whole folder again",
    "own": "it has an object of a class that only its own code knows: Own",
    "untrusted": "is a Keras file with a Lambda layer, which can run any code when it is loaded",
    "declared": "it has no input 'lines', only rows",
}


@pytest.fixture(scope="module")
def outcomes(models: Path, sandbox_factory: Callable[[], Sandbox]) -> dict[str, Outcome]:
    sandbox = sandbox_factory()
    (sandbox.root / ".modelwright/environments").symlink_to(STATE)
    for name, (source, path) in SOURCES.items():
        data = ROWS.replace('"rows"', '"lines"') if name == "declared" else ROWS
        yaml = f"source: {source}\nsamples: data:samples\nserving: {{max_batch_size: 8}}"
        folder = sandbox.write(name, model_yaml=yaml, data_py=data)
        (shutil.copytree if (models / path).is_dir() else shutil.copyfile)(models / path, folder / path)
    (sandbox.root / "builders/damaged/words/saved_model.pb").write_bytes(b"\xff" * 100)
    found = sandbox.build()
    assert {name.partition("/")[0] for name in sandbox.published()} == {"trusted"}
    return found


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_says_what_to_do(outcomes: dict[str, Outcome], name: str) -> None:
    assert REASONS[name] in str(outcomes[name].error)


def test_code_in_a_keras_file_runs_where_it_is_trusted(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["trusted"].error is None
