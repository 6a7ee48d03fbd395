"""The step that makes `version/model.onnx`: exported from a module, or taken as it is from a file or URL.

Beside it lies `expected.npz` where there is a source to ask: what the source itself answers on the golden samples.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelwright.config.served import served_session, served_view
from modelwright.digest import sha256_file
from modelwright.errors import StepError, located
from modelwright.facts.made import Made, OnnxSignature
from modelwright.kinds.export import Exporter
from modelwright.kinds.huggingface import HuggingFaceSource, huggingface_directory
from modelwright.kinds.onnx import OnnxSource
from modelwright.onnx.check import check_limits, check_rows, check_shapes, read_signature
from modelwright.onnx.runtime import session_values
from modelwright.onnx.signature import Signature
from modelwright.project.files import local_file
from modelwright.project.uris import is_uri
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.files import source_path
from modelwright.steps.samples import load_samples
from modelwright.steps.sources.download import download
from modelwright.steps.sources.registry import open_source
from modelwright.triton.file_types import file_type
from modelwright.triton.tensors import Tensors, save_tensors
from modelwright.verification.samples import of_equal_sizes, pack, stacked, unstacked


def from_torch(context: StepContext, out: Path) -> Made:
    """Export the module that the torch step stored."""
    from modelwright.steps.train import load_module

    return export_module(context, load_module(context, context.inputs["module"]), out, exporter_of(context))


def from_huggingface(context: StepContext, out: Path) -> Made:
    """Load a Hugging Face directory, let the entry wrap the model, export it."""
    import torch

    torch.set_num_threads(context.source(HuggingFaceSource).threads)
    return export_module(context, huggingface_module(context), out, exporter_of(context))


def huggingface_module(context: StepContext) -> Any:
    """The model of a Hugging Face directory (safetensors only), as the entry wraps it."""
    from modelwright.steps.huggingface import load_model

    source = context.source(HuggingFaceSource)
    with located(f"{context.builder.file}: source"):
        path = source.path if source.path and is_uri(source.path) else ""
        fetched = source_path(context, "source.path", path, folder=True) if path else None
        module = load_model(huggingface_directory(context.builder, source, fetched), source.auto_class)
    if source.entry:
        module = call(context, "source.entry", source.entry, module, **source.params)
    return module


def from_file(context: StepContext, out: Path) -> Made:
    """Take an ONNX file as it is, byte for byte, once its digest and limits are checked."""
    source = context.source(OnnxSource)
    target = _version_folder(out) / "model.onnx"
    where = f"{context.builder.file}: source"
    if source.url:
        with located(f"{where}.url"):
            _download(context, source.url, target)
    else:
        shutil.copyfile(source_path(context, "source.path", str(source.path)), target)
    actual = sha256_file(target)
    if source.sha256 not in (None, actual):
        hint = "the file is not the one this builder was written for; if it is meant to change, change sha256 too"
        found = file_type(target)
        what = f": what came is {found.what}" if found else ""
        raise StepError(f"{where}.sha256: expected {source.sha256}, got {actual}{what}", found.fix if found else hint)
    with located(f"{where}.{'url' if source.url else 'path'}"):
        signature = read_signature(target)
    for name in signature.external:
        _copy_weights(context, source, name, target.parent)
    return made(signature, target, context)


def exporter_of(context: StepContext) -> Exporter:
    """What the builder's source asks for, from a step's config."""
    chosen: Exporter = context.config.get("exporter", "dynamo")
    return chosen


def export_module(context: StepContext, module: Any, out: Path, exporter: Exporter = "dynamo") -> Made:
    """Export a module in eval mode as `out`/version/model.onnx, and keep what it answers to the golden samples."""
    from modelwright.steps.export import onnx_from_torch, run_torch

    spec = context.builder.spec
    samples = load_samples(context, {})
    groups = [(group, stacked([samples[index] for index in group])) for group in of_equal_sizes(samples)]
    target = _version_folder(out) / "model.onnx"
    expected: dict[int, Tensors] = {}
    with located(f"{context.builder.file}: source"):
        for group, tensors in groups:
            answers = run_torch(module, tensors, spec.inputs, spec.outputs, batched=spec.batched)
            expected |= zip(group, unstacked(answers), strict=True)
        first = groups[0][1]
        onnx_from_torch(
            module,
            first,
            spec.inputs,
            spec.outputs,
            target,
            context.target,
            batched=spec.batched,
            exporter=exporter,
        )
    save_tensors(out / "expected.npz", pack([expected[index] for index in range(len(samples))]))
    return made(read_signature(target), target, context)


def made(declared: Signature, file: Path, context: StepContext) -> Made:
    """The model's signature, once it is within the target's limits and agrees with the model.yaml.

    Tensors are those of a session with the options of the server, since the server compares with its session: the file
    can declare less than onnxruntime infers.
    """
    builder = context.builder
    with located(f"{builder.file}: source"):
        check_limits(declared, context.target)
        session = served_session(builder, file)
        inputs, outputs = session_values(session)
        signature = replace(declared, inputs=inputs, outputs=outputs)
        check_shapes(declared, signature, file.name)
        if builder.spec.batched:
            served = {output.name for output in builder.spec.outputs} or {value.name for value in outputs}
            check_rows(replace(signature, outputs=tuple(value for value in outputs if value.name in served)), file.name)
    served_view(builder, session)
    return Made(signature=OnnxSignature.of(signature))


def _version_folder(out: Path) -> Path:
    folder = out / "version"
    folder.mkdir()
    return folder


def _copy_weights(context: StepContext, source: OnnxSource, name: str, target: Path) -> None:
    where = f"{context.builder.file}: source"
    if source.url:
        raise StepError(
            f"{where}.url: the model keeps its weights in another file, '{name}'", "use path instead of url"
        )
    destination = target / name
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_weights_file(context, str(source.path), name), destination)


def _weights_file(context: StepContext, path: str, name: str) -> Path:
    """A file with weights, as the graph lists it: beside the graph."""
    if not is_uri(path):
        return local_file(context.builder, "source.path", (Path(path).parent / name).as_posix())
    file = source_path(context, "source.path", path).parent / name
    if not file.is_file():
        where = f"{context.builder.file}: source.path: source.lock does not have the weights '{name}'"
        raise StepError(where, f"modelwright update {context.builder.folder.name} writes it again")
    return file


def _download(context: StepContext, url: str, target: Path) -> None:
    """Within the limits of `[sources]` in modelwright.toml, as a URI in `path` is fetched."""
    source = open_source(url)
    if source.is_folder:
        raise StepError(f"{url} is a folder, and a file is needed")
    download(source, next(iter(source.files())), target, context.fetch_limits)
