"""source.kind torch: a function of the builder trains or builds a module, which is exported to ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, JsonValue

from modelwright.kinds.export import EXPORT_TOOLS, TORCH, ExporterField, exporter_options
from modelwright.kinds.kind import BuilderTemplate, Kind, shipped
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_onnxruntime
from modelwright.project.spec import Entry, SourceSpec

_TRAIN = StepFunction("torch", "modelwright.steps.train:run")
_EXPORT = StepFunction("onnx", "modelwright.steps.onnx:from_torch", revision=2)


class TorchSource(SourceSpec):
    kind: Literal["torch"]
    entry: Entry = Field(description="module:function of this folder. (**params) → an nn.Module in eval mode.")
    params: dict[str, JsonValue] = Field({}, description="Arguments of the entry: changing one trains again.")
    exporter: ExporterField = "dynamo"
    threads: int = Field(
        1, ge=1, description="Threads to train with. Part of the result: floating-point sums depend on it."
    )

    def entries(self) -> Mapping[str, Entry]:
        return {"entry": self.entry}


def _steps(recipe: Recipe, source: TorchSource) -> list[Step]:
    config: dict[str, Any] = {"entry": source.entry, "params": source.params, "threads": source.threads}
    train = recipe.code_step("torch", _TRAIN, source.entry, config, ("torch",), source.threads)
    export = recipe.step(
        "onnx",
        _EXPORT,
        config={
            **recipe.tensors,
            "batched": recipe.builder.spec.batched,
            **recipe.onnx_limits,
            **recipe.graph_options,
            **exporter_options(source.exporter),
        },
        data=recipe.operators,
        code=train.code,  # the module is a pickle: loading it runs the code it was made by
        tools=versions(EXPORT_TOOLS),
        needs={"module": train.id, **recipe.samples},
        threads=source.threads,
    )
    return [train, export]


KIND = Kind(
    name="torch",
    source=TorchSource,
    summary="a PyTorch module that a function of the builder returns",
    takes="`entry`: a function that returns a module; exported by `exporter` (dynamo, torchscript), dynamic batch",
    verified="in the target's onnxruntime, against the module",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    needs=(TORCH,),
    training_step=_TRAIN.name,
    has_module=True,
    backend="onnxruntime",
    scaffold={"": shipped("torch")},
    templates={
        "classifier": BuilderTemplate(shipped("torch_classifier"), "modelwright[train]", ("lightning", "kornia"))
    },
)
