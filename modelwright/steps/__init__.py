"""The steps of a build: one function each, `run(context, out) -> facts`, that writes files below `out`.

Importing this package imports none of them: a worker process loads the one it runs, and only then its ML framework.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from modelwright.steps.context import StepContext

StepFunction = Callable[[StepContext, Path], dict[str, Any]]

RUNNERS = {
    "samples": "modelwright.steps.samples:run",
    "torch": "modelwright.steps.train:run",
    "onnx": "modelwright.steps.onnx:from_torch",
    "huggingface": "modelwright.steps.onnx:from_huggingface",
    "onnx_file": "modelwright.steps.onnx:from_file",
    "python": "modelwright.steps.python:run",
    "ensemble": "modelwright.steps.ensemble:run",
    "prebuilt": "modelwright.steps.prebuilt:run",
    "verify": "modelwright.steps.verify:run",
    "verify_served": "modelwright.steps.verify:run_served",
    "verify_prebuilt": "modelwright.steps.prebuilt:verify",
}

# Raise a number when the function gives another output for the same inputs: what it made before is then built again.
REVISIONS = {
    "samples": 1,
    "torch": 1,
    "onnx": 1,
    "huggingface": 1,
    "onnx_file": 1,
    "python": 1,
    "ensemble": 1,
    "prebuilt": 1,
    "verify": 2,
    "verify_prebuilt": 1,
}


def load(run: str) -> StepFunction:
    module, _, function = RUNNERS[run].partition(":")
    loaded: StepFunction = getattr(import_module(module), function)
    return loaded
