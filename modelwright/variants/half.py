"""What `fp16` and `bf16` share: their options, and where the version that they make will run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import StepOptions
from modelwright.variants.technique import Stage

KERNELS = "kernels"  # in the step's config: what the version must run on


class HalfOptions(StepOptions):
    keep_float32: tuple[str, ...] = Field(
        default=(),
        description="operators (Softmax) or nodes (node_conv_3) that stay in float32, beside those that are sensitive",
    )
    budget: int = Field(
        default=12,
        ge=0,
        le=30,
        description="how many graphs are tried, where the first misses what it is held to: in each, more nodes stay in "
        "float32, those that do most harm first",
    )


def half_step(stage: Stage, options: HalfOptions, function: StepFunction, config: Mapping[str, Any] = {}) -> Step:
    return stage.step(function, options, config=config, tools=("onnx", "onnxruntime"), gated=True)


def served_by_onnxruntime(stage: Stage) -> bool:
    """Whether onnxruntime runs what this chain makes, and no technique after it hands the graph to another backend."""
    from modelwright.variants.registry import backend_of

    return backend_of(stage.recipe.builder) == "onnxruntime"


def on_gpu_only(stage: Stage) -> bool:
    """Whether `serving` asks for a GPU by name, for all instances."""
    groups = stage.recipe.builder.spec.serving.get("instance_group")
    return bool(groups) and isinstance(groups, list) and all(map(_is_gpu, groups))


def _is_gpu(group: Any) -> bool:
    return isinstance(group, dict) and group.get("kind") == "KIND_GPU"
