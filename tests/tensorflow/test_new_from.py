"""`new --from` a model of TensorFlow: what it says, and that the builder builds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sandbox
from tests.tensorflow.conftest import STATE

pytestmark = pytest.mark.tensorflow


def test_a_builder_around_each_builds(models: Path, sandbox_factory: Callable[[], Sandbox]) -> None:
    sandbox = sandbox_factory()
    (sandbox.root / ".modelwright/environments").symlink_to(STATE)
    said = {}
    for name, source in (("net", "digits.keras"), ("pair", "two"), ("ranker", "served")):
        result = sandbox.cli("new", name, "--from", str(models / source))
        assert result.exit_code == 0, result.output
        said[name] = result.output
    assert "Saw a Keras file of Keras 3" in said["net"]
    assert "Saw a SavedModel of TensorFlow" in said["pair"]
    assert "signature 'add' is served; it has scores, too" in said["pair"]
    assert "Saw a base directory of TensorFlow Serving: versions 3, 12" in said["ranker"]
    outcomes = sandbox.build()
    assert {name: str(outcome.error) for name, outcome in outcomes.items() if outcome.error} == {}
