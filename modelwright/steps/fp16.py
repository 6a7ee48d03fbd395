"""The step `fp16`: the graph in FP16, with float32 where FP16 is too small or too coarse."""

from __future__ import annotations

from pathlib import Path

from modelwright.onnx.precision import FP16
from modelwright.steps.context import StepContext
from modelwright.steps.half import Halved, halve


def run(context: StepContext, out: Path) -> Halved:
    return halve(context, out, FP16)
