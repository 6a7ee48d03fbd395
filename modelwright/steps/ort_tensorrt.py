"""The steps of ort_tensorrt: the ONNX file as it is, verified on the CPU; only config.pbtxt differs."""

from __future__ import annotations

import shutil
from pathlib import Path

from modelwright.facts.made import Made
from modelwright.facts.verified import Verified
from modelwright.onnx.check import read_signature
from modelwright.steps import verify_variant
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import MODEL
from modelwright.steps.onnx import made

_NOTE = (
    "verified in onnxruntime on the CPU: TensorRT, which runs the model in the server, was not run, so what it computes"
    " in another precision is not known"
)


def run(context: StepContext, out: Path) -> Made:
    """Take the graph, with the weights beside it."""
    source = context.inputs["source"] / MODEL
    signature = read_signature(source)
    for name in ("model.onnx", *signature.external):
        target = out / "version" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.parent / name, target)
    return made(signature, out / MODEL, context)


def verify(context: StepContext, out: Path) -> Verified:
    """Verify the model as an ONNX file, and say what that leaves open."""
    verified = verify_variant.run(context, out)
    return verified.model_copy(update={"notes": (*verified.notes, _NOTE)})
