"""source.kind pt2: a program that torch.export saved, translated to ONNX."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelwright.kinds.export import TORCH, export_file_step
from modelwright.kinds.kind import Kind
from modelwright.kinds.origin import source_files
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.trust import TrustedField
from modelwright.kinds.verify import in_onnxruntime
from modelwright.project.spec import ModelSpec, SourceSpec
from modelwright.project.uris import SourcePath

_EXPORT = StepFunction("pt2", "modelwright.steps.pt2:to_onnx")


class Pt2Source(SourceSpec):
    kind: Literal["pt2"]
    path: SourcePath = Field(description="A file that torch.export.save wrote, or its URI.")
    trusted: TrustedField = False
    threads: int = Field(1, ge=1, description="Threads to run the program with. Part of the result.")
    serve_as: Literal["onnx", "pytorch"] = Field("onnx", description="Always onnx.")

    def check(self, spec: ModelSpec) -> None:
        if self.serve_as == "pytorch":
            raise ValueError(
                "serve_as: Triton's pytorch backend does not load what torch.export.save writes, but packages that "
                "AOTInductor compiled from it for one kind of device (platform torch_aoti): leave serve_as out"
            )


def _steps(recipe: Recipe, source: Pt2Source) -> list[Step]:
    files = source_files(recipe, "source.path", source.path)
    config = {"trusted": source.trusted, "max_batch_size": recipe.builder.spec.max_batch_size}
    return [*files.steps, export_file_step(recipe, _EXPORT, files, config, source.threads)]


KIND = Kind(
    name="pt2",
    source=Pt2Source,
    summary="a program of torch.export",
    takes="`path`: a file of torch.export.save, exported with the dimensions that vary as dynamic ones",
    verified="in the target's onnxruntime, against the program in PyTorch",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    needs=(TORCH,),
    backend="onnxruntime",
)
