"""source.kind torchserve: a model archive of TorchServe, whose model is exported to ONNX."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelwright.kinds.export import TORCH, ExporterField, export_file_step
from modelwright.kinds.kind import Kind, Verification
from modelwright.kinds.origin import is_folder, source_files
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.trust import TrustedField
from modelwright.project.spec import ModelSpec, SourceSpec
from modelwright.project.uris import SourcePath

_EXPORT = StepFunction("torchserve", "modelwright.steps.torchserve:to_onnx")
_VERIFY = StepFunction("verify_torchserve", "modelwright.steps.torchserve:verify")


class TorchServeSource(SourceSpec):
    kind: Literal["torchserve"]
    path: SourcePath = Field(
        description="An archive that torch-model-archiver wrote, .mar or .tar.gz, or the folder that --archive-format "
        "no-archive makes; or its URI."
    )
    handler: Literal["ignore"] | None = Field(
        None,
        description="ignore: the archive's own handler does not run, and clients send and get the model's tensors.",
    )
    trusted: TrustedField = False
    exporter: ExporterField = "dynamo"
    threads: int = Field(1, ge=1, description="Threads to run the module with. Part of the result.")


def _steps(recipe: Recipe, source: TorchServeSource) -> list[Step]:
    folder = is_folder(recipe.builder, source.path)
    files = source_files(recipe, "source.path", source.path, folder=folder)
    config = {"handler": source.handler, "trusted": source.trusted, "exporter": source.exporter, "folder": folder}
    return [*files.steps, export_file_step(recipe, _EXPORT, files, config, source.threads)]


def _in_onnxruntime(spec: ModelSpec, source: TorchServeSource) -> Verification:
    return Verification(_VERIFY)


KIND = Kind(
    name="torchserve",
    source=TorchServeSource,
    summary="an archive of TorchServe",
    takes="`path`: a .mar; TorchScript, or weights with their class (`trusted`); a handler of its own needs "
    "`handler: ignore`",
    verified="in the target's onnxruntime, against the module in PyTorch",
    steps=_steps,
    version_step="onnx",
    verification=_in_onnxruntime,
    needs=(TORCH,),
    backend="onnxruntime",
)
