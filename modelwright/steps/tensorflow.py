"""The steps that make `version/model.onnx` of a SavedModel or a Keras file.

TensorFlow runs in a process and an environment of its own (`tensorflow_process`). It answers the golden samples itself
and writes the graph; here the graph gets its shapes and its canonical form, as the server will see it.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from modelwright.environments.tensorflow import MAX_OPSET
from modelwright.errors import StepError, located
from modelwright.facts.made import Made
from modelwright.kinds.keras import KerasSource
from modelwright.kinds.tensorflow import TensorflowSource
from modelwright.kinds.trust import check_trusted
from modelwright.onnx.canonical import load, save_canonical
from modelwright.onnx.check import read_signature
from modelwright.onnx.rows import is_given
from modelwright.steps.context import StepContext
from modelwright.steps.files import source_path
from modelwright.steps.onnx import made
from modelwright.steps.samples import load_samples
from modelwright.steps.tensorflow_names import renumber
from modelwright.steps.tensorflow_process import MODEL, run_program
from modelwright.triton.file_types import file_type
from modelwright.triton.tensors import Tensors, save_tensors
from modelwright.verification.samples import of_equal_sizes, pack, stacked, unstacked

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_SAVED = "saved_model.pb"
_LAMBDAS = ('"class_name": "Lambda"', '"class_name": "__lambda__"')
_BATCH = "batch"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def from_saved_model(context: StepContext, out: Path) -> Made:
    """Convert a signature of a SavedModel."""
    source = context.source(TensorflowSource)
    folder = source_path(context, "source.path", source.path, folder=True)
    where = f"{context.builder.file}: source.path: '{source.path}'"
    with located(where):
        check_saved_model(folder)
        request = {"form": "saved_model", "signature": source.signature, "tags": source.tags, "threads": source.threads}
        file = convert(context, {**request, "model": str(folder.resolve())}, out / "version", out / "expected.npz")
    return made(read_signature(file), file, context)


def from_keras(context: StepContext, out: Path) -> Made:
    """Convert a Keras file."""
    source = context.source(KerasSource)
    file = source_path(context, "source.path", source.path)
    where = f"{context.builder.file}: source.path"
    check_keras_file(file, where, trusted=source.trusted)
    with located(f"{where}: '{source.path}'"):
        request = {"form": "keras", "trusted": source.trusted, "threads": source.threads}
        graph = convert(context, {**request, "model": str(file.resolve())}, out / "version", out / "expected.npz")
    return made(read_signature(graph), graph, context)


def convert(context: StepContext, request: Mapping[str, Any], folder: Path, expected: Path) -> Path:
    """Make `folder`/model.onnx of what a request names, and keep what TensorFlow answers to the samples.

    Raises StepError with TensorFlow's reason.
    """
    spec, samples = context.builder.spec, load_samples(context, {})
    groups = of_equal_sizes(samples)
    request = {
        "action": "convert",
        "batched": spec.batched,
        "opset": min(MAX_OPSET, context.target.max_opset),
        **request,
    }
    expected.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=expected.parent) as scratch:
        asked = [stacked([samples[index] for index in group]) for group in groups]
        result, answered = run_program(context.environments, request, asked, Path(scratch), context.say)
        answers: dict[int, Tensors] = {}
        for group, tensors in zip(groups, answered, strict=True):
            answers |= zip(group, unstacked(tensors), strict=True)
        model = load(Path(scratch) / "out" / MODEL)
    found = [answers[index] for index in range(len(samples))]
    renumber(model)
    _complete(model, context, found[0])
    folder.mkdir(parents=True)
    save_canonical(model, folder / MODEL)
    save_tensors(expected, pack(found))
    names = ", ".join(tensor["name"] for side in ("inputs", "outputs") for tensor in result[side])
    context.say(f"converted: {names}")
    return folder / MODEL


def _complete(model: ModelProto, context: StepContext, answer: Tensors) -> None:
    """Name the dimensions as model.yaml does, and give a shape to what tf2onnx knows none of; an IR that is served."""
    spec = context.builder.spec
    declared = {tensor.name: tensor.shape for tensor in (*spec.inputs, *spec.outputs)}
    model.ir_version = min(model.ir_version, context.target.max_ir)
    del model.graph.value_info[:]  # of made-up names for dimensions, which onnxruntime infers better
    for value in (*model.graph.input, *model.graph.output):
        if value.name in answer and not value.type.tensor_type.HasField("shape"):
            for _ in range(answer[value.name].ndim + int(spec.batched)):
                value.type.tensor_type.shape.dim.add()
        _name_dims(value, declared.get(value.name, ()), batched=spec.batched)


def _name_dims(value: ValueInfoProto, declared: Sequence[int | str], *, batched: bool) -> None:
    dims = value.type.tensor_type.shape.dim
    names: list[int | str] = [*([_BATCH] if batched else []), *declared]
    for axis, dim in enumerate(dims):
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            continue
        name = names[axis] if axis < len(names) else -1
        dim.Clear()
        if isinstance(name, str) and is_given(name):
            dim.dim_param = name


def check_saved_model(folder: Path) -> None:
    """Raise StepError for a folder that is no SavedModel, and say what it is instead."""
    if (folder / _SAVED).is_file():
        return
    if (folder / "saved_model.pbtxt").is_file():
        raise StepError("has its graph as text, saved_model.pbtxt", "save it again: TensorFlow writes saved_model.pb")
    numbered = sorted(item.parent.name for item in folder.glob(f"*/{_SAVED}"))
    if numbered and all(name.isdecimal() for name in numbered):
        hint = f"source.kind tf_serving keeps their numbers; or name one of them: source.path: …/{numbered[-1]}"
        raise StepError(f"is a base directory of TensorFlow Serving, with versions {', '.join(numbered)}", hint)
    if numbered:
        raise StepError(f"has no {_SAVED}", f"did you mean its folder '{numbered[0]}'?")
    if any(folder.glob("*.index")) or (folder / "checkpoint").is_file():
        hint = "it holds weights and no graph: load it where its code is, and tf.saved_model.save(model, folder)"
        raise StepError("is a checkpoint of TensorFlow", hint)
    graphs = sorted(item.name for item in folder.glob("*.pb"))
    if graphs:
        hint = (
            "python -m tf2onnx.convert --graphdef FILE --inputs … --outputs … makes an ONNX file, for source.kind onnx"
        )
        raise StepError(f"has no {_SAVED}; {graphs[0]} is a frozen graph of TensorFlow 1, by its name", hint)
    raise StepError(f"has no {_SAVED}: it is no SavedModel", "tf.saved_model.save(model, folder) writes one")


def check_keras_file(file: Path, where: str, *, trusted: bool) -> None:
    """Raise StepError for what is no file of Keras, an archive with paths that leave it, and for code in it that the
    builder does not trust."""
    shown = f"{where}: '{file.name}'"
    if not zipfile.is_zipfile(file):
        with file.open("rb") as opened:
            head = opened.read(len(_HDF5))
        if head != _HDF5:
            found = file_type(file)
            what = f"it is {found.what}" if found else "neither a zip archive nor HDF5"
            raise StepError(f"{shown}: not a file of Keras: {what}", found.fix if found else "copy or save it again")
        return
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive, shown)
            config = archive.read("config.json").decode()
    except KeyError:
        raise StepError(f"{shown}: a zip archive without config.json, so not Keras'", "model.save('m.keras')") from None
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError, ValueError) as error:
        raise StepError(f"{shown}: damaged: {error}", "copy or save it again") from None
    if any(mark in config for mark in _LAMBDAS):
        instead = "save it with model.export(folder) where its code is: source.kind tensorflow"
        check_trusted(trusted, where, "a Keras file with a Lambda layer", instead)


def _check_members(archive: zipfile.ZipFile, shown: str) -> None:
    for name in archive.namelist():
        path = PurePosixPath(name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in name:
            raise StepError(f"{shown}: has a member that leaves the archive: {name}", "do not use this file")
    broken = archive.testzip()
    if broken:
        raise StepError(f"{shown}: damaged: {broken} has another checksum", "copy or save it again")
