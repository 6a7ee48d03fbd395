"""How models are verified: in onnxruntime, or by the local server."""

from __future__ import annotations

from modelwright.kinds.kind import Verification
from modelwright.kinds.step import StepFunction
from modelwright.project.spec import ModelSpec, SourceSpec

_ONNXRUNTIME = StepFunction("verify", "modelwright.steps.verify:run", revision=4)
_SERVER = StepFunction("verify_served", "modelwright.steps.verify:run_served", revision=4)


def in_onnxruntime(spec: ModelSpec, source: SourceSpec) -> Verification:
    """In the target's onnxruntime: versions that hold a `model.onnx`."""
    return Verification(_ONNXRUNTIME)


def in_server(spec: ModelSpec, source: SourceSpec) -> Verification:
    """By the local server, whatever the backend."""
    return Verification(_SERVER, served=True)
