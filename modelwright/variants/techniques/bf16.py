"""BF16 in the graph: the range of float32, and two to three digits. onnxruntime's CPU cannot run it."""

from __future__ import annotations

from modelwright.kinds.step import Step, StepFunction
from modelwright.variants.half import KERNELS, HalfOptions, half_step, on_gpu_only, served_by_onnxruntime
from modelwright.variants.technique import Skipped, Stage, Technique

_BF16 = StepFunction("bf16", "modelwright.steps.bf16:run", revision=3)
_NO_CPU = (
    "onnxruntime computes nothing in BF16 on the CPU: serve it on GPUs only (serving: {instance_group: [{kind: "
    "KIND_GPU}]}), make a TensorRT plan of it, or use fp16"
)


class Bf16Options(HalfOptions):
    pass


def _step(stage: Stage, options: Bf16Options) -> Step | Skipped:
    if not served_by_onnxruntime(stage):
        return half_step(stage, options, _BF16)
    if not on_gpu_only(stage):
        return Skipped(_NO_CPU)
    return half_step(stage, options, _BF16, {KERNELS: "cuda"})


TECHNIQUE = Technique(
    name="bf16",
    options=Bf16Options,
    summary="computes in BF16 where that is safe; for GPUs only",
    works_on="graph",
    step=_step,
    precision="bf16",
)
