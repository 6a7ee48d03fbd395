"""The step `bf16`: the graph in BF16, with float32 where BF16 is too coarse."""

from __future__ import annotations

from pathlib import Path

from modelwright.onnx.precision import BF16
from modelwright.steps.context import StepContext
from modelwright.steps.half import Halved, halve


def run(context: StepContext, out: Path) -> Halved:
    return halve(context, out, BF16)
