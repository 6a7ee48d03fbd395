"""source.kind onnx: an ONNX file, of the builder's folder or a URI, published byte for byte."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from modelwright.kinds.export import ONNX_TOOLS
from modelwright.kinds.kind import Files, Kind, shipped
from modelwright.kinds.origin import SourceFiles, source_files
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_onnxruntime
from modelwright.onnx.weights import check_weights, weight_files
from modelwright.project.files import local_file
from modelwright.project.spec import Sha256, SourceSpec
from modelwright.project.uris import SourcePath, is_uri

_TAKE = StepFunction("onnx_file", "modelwright.steps.onnx:from_file", revision=2)


class OnnxSource(SourceSpec):
    needs_tensors: ClassVar[bool] = False  # the file declares them

    kind: Literal["onnx"]
    path: SourcePath | None = Field(
        None,
        description="An ONNX file of this folder, or its URI: s3://, gs://, az:// or https://. Files with its weights "
        "lie beside it, as it lists them.",
    )
    url: str | None = Field(
        None,
        description="https:// or file://, with sha256; [sources] of modelwright.toml says how large the file may be. "
        "A URI as path needs no sha256 here.",
    )
    sha256: Sha256 | None = Field(None, description="The digest of what the URL serves: sha256sum model.onnx.")

    @model_validator(mode="after")
    def _one_place(self) -> OnnxSource:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path or url")
        if self.url is not None and not self.url.startswith(("https://", "file://")):
            raise ValueError("url: https:// or file:// is needed")
        if self.url is not None and self.sha256 is None:
            raise ValueError("sha256 is needed with url: what a URL serves can change")
        return self


def _steps(recipe: Recipe, source: OnnxSource) -> list[Step]:
    files, data = SourceFiles(), dict[str, str]()
    if source.path:
        files = source_files(recipe, "source.path", source.path)
        data = {**files.data, **({} if is_uri(source.path) else _weights(recipe, source.path)), **recipe.declared()}
    take = recipe.step(
        "onnx",
        _TAKE,
        config={
            "sha256": source.sha256,
            **recipe.onnx_limits,
            **recipe.graph_options,
            "batched": recipe.builder.spec.batched,
        },
        data=data | recipe.operators,
        tools=versions(ONNX_TOOLS),
        needs={**recipe.samples, **files.needs},
    )
    return [*files.steps, take]


def _weights(recipe: Recipe, path: str) -> dict[str, str]:
    """{file: SHA-256} of the files with weights that the graph lists. Raises SpecError with all that are missing."""
    builder, prints = recipe.builder, recipe.fingerprints
    graph, parent = builder.folder / path, PurePosixPath(path).parent
    listed = prints.found(graph, weight_files)
    check_weights(listed, graph.parent, f"{builder.file}: source.path")
    files = [(parent / name).as_posix() for name, _ in listed]
    return {name: prints.file(local_file(builder, "source.path", name)) for name in files}


def _beside(path: Path) -> list[str]:
    return [name for name, _ in weight_files(path)]


def scaffold() -> Files:
    """A builder with a small real model."""
    from modelwright.onnx.example import sobel_onnx

    return {**shipped("onnx")(), "model.onnx": sobel_onnx()}


KIND = Kind(
    name="onnx",
    source=OnnxSource,
    summary="an ONNX file",
    takes="`path`: a file or its URI; or `url` with `sha256`; opset and IR must suit the target",
    verified="in the target's onnxruntime, against `reference` if given",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    backend="onnxruntime",
    files_beside_source=_beside,
    scaffold={"": scaffold},
)
