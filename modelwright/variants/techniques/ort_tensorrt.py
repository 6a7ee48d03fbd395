"""ort_tensorrt: the graph stays an ONNX file, and the server's onnxruntime runs it through TensorRT.

The server builds the engines itself, when it loads the model and when a request has a new shape: nothing is needed to
build a version, and loading takes longer. Operators that TensorRT does not take run in onnxruntime.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from modelwright.errors import ConfigError
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import StepOptions
from modelwright.suggest import did_you_mean
from modelwright.triton.accelerators import TENSORRT_PARAMETERS
from modelwright.variants.technique import Stage, Technique

_TAKE = StepFunction("ort_tensorrt", "modelwright.steps.ort_tensorrt:run")
_VERIFY = StepFunction("verify_ort_tensorrt", "modelwright.steps.ort_tensorrt:verify")
_NAME = "tensorrt"  # of the accelerator
_MODES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}


class OrtTensorRtOptions(StepOptions):
    """Parameters of onnxruntime's TensorRT provider, as the backend takes them."""

    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="What TensorRT may compute in. With a chain such as [fp16, ort_tensorrt] the graph says it."
    )
    workspace_mb: int | None = Field(None, ge=1, description="Scratch memory that a layer may use, 10^6 bytes.")
    builder_level: int | None = Field(None, ge=0, le=5, description="How long TensorRT looks for faster kernels.")
    engine_cache: str | None = Field(
        None, min_length=1, description="A folder of the server in which engines are kept: later loads are fast."
    )
    parameters: dict[str, str] = Field({}, description="More of them, by the backend's own names.")

    @model_validator(mode="after")
    def _known(self) -> OrtTensorRtOptions:
        taken = self.own_parameters
        for name in self.parameters:
            if name not in TENSORRT_PARAMETERS:
                near = did_you_mean(name, TENSORRT_PARAMETERS)
                raise ValueError(f"parameters: the backend's tensorrt accelerator has no '{name}': {near}")
            if name in taken:
                raise ValueError(f"parameters: {name} is set by another option of ort_tensorrt: leave one out")
        return self

    @property
    def own_parameters(self) -> dict[str, str]:
        """What the other options say, as the backend's parameters."""
        found: dict[str, str] = {"precision_mode": _MODES[self.precision]}
        if self.workspace_mb is not None:
            found["max_workspace_size_bytes"] = str(self.workspace_mb * 1_000_000)
        if self.builder_level is not None:
            found["trt_builder_optimization_level"] = str(self.builder_level)
        if self.engine_cache is not None:
            found |= {"trt_engine_cache_enable": "true", "trt_engine_cache_path": self.engine_cache}
        return found


def _step(stage: Stage, options: OrtTensorRtOptions) -> Step:
    return stage.step(_TAKE, options)


def _complete(config: Any, options: OrtTensorRtOptions, where: str) -> None:
    """Ask for the accelerator, and for instances on a GPU, which alone use it."""
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    if any(entry.name == _NAME for entry in accelerators):
        place = f"{where}.optimization.execution_accelerators.gpu_execution_accelerator"
        raise ConfigError(
            f"{place}: '{_NAME}' follows from steps: [ort_tensorrt]", "remove it, and write its options there"
        )
    accelerators.add(name=_NAME, parameters={**options.own_parameters, **options.parameters})
    if not config.instance_group:
        config.instance_group.add()
    for index, group in enumerate(config.instance_group):
        if group.kind in (group.KIND_CPU, group.KIND_MODEL):
            kind = group.Kind.Name(group.kind)
            raise ConfigError(
                f"{where}.instance_group[{index}].kind: {kind}, and only instances on a GPU use TensorRT",
                "write KIND_GPU",
            )
        group.kind = group.KIND_GPU


TECHNIQUE = Technique(
    name="ort_tensorrt",
    options=OrtTensorRtOptions,
    summary="TensorRT inside the server's onnxruntime: the same ONNX file, engines built at load",
    works_on="graph",
    step=_step,
    lossy=False,
    verification=_VERIFY,
    complete_config=_complete,
)
