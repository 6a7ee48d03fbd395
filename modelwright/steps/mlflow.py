"""The step of source.kind mlflow: `version/model.onnx` of an MLflow model, by its flavour."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.errors import StepError, located
from modelwright.facts.made import Made
from modelwright.kinds.mlflow import MlflowSource
from modelwright.kinds.mlmodel import FILE, MlModel, parse_mlmodel
from modelwright.kinds.trust import check_trusted
from modelwright.onnx.check import read_signature
from modelwright.steps.context import StepContext
from modelwright.steps.files import source_path
from modelwright.steps.onnx import export_module, made

_KERAS = ("model.keras", "model.h5", "model")  # as MLflow names it in the data folder


def from_onnx(context: StepContext, out: Path) -> Made:
    """The graph as it was logged, byte for byte, with its weights."""
    folder, model, where = opened(context)
    graph = file_inside(folder, str(model.flavors["onnx"].get("data", "model.onnx")), where)
    version = out / "version"
    version.mkdir()
    target = version / "model.onnx"
    shutil.copyfile(graph, target)
    with located(where):
        signature = read_signature(target)
    for name in signature.external:
        beside = file_inside(folder, (graph.relative_to(folder).parent / name).as_posix(), where)
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(beside, version / name)
    return made(signature, target, context)


def from_estimator(context: StepContext, out: Path) -> Made:
    """The estimator that MLflow wrote, converted, and compared with its library. A pickle must be trusted."""
    from modelwright.steps.estimator_files import load_estimator
    from modelwright.steps.estimators import export_estimator, threads
    from modelwright.triton.estimator_files import PICKLES, estimator_file

    folder, model, where = opened(context)
    source, flavor = context.source(MlflowSource), str(context.config["flavor"])
    named = model.flavors[flavor].get("pickled_model") or model.flavors[flavor].get("data")
    file = file_inside(folder, str(named), where)
    kind = "sklearn" if estimator_file(file) in PICKLES else flavor
    estimator = load_estimator(file, kind, f"{where}: {named}", trusted=source.trusted)
    with threads(source.threads):
        return export_estimator(context, estimator, out, where)


def from_pytorch(context: StepContext, out: Path) -> Made:
    """The module that MLflow loads, exported. It is a pickle, which the builder must trust."""
    import torch

    folder, _, where = opened(context)
    source = context.source(MlflowSource)
    instead = "log the model as ONNX: mlflow.onnx.log_model"
    check_trusted(source.trusted, where, "an MLflow model of the flavour pytorch, a pickle", instead)
    torch.set_num_threads(source.threads)
    return export_module(context, _loaded(folder, where).eval(), out)


def from_tensorflow(context: StepContext, out: Path) -> Made:
    """A module or a Keras model, converted in TensorFlow's environment. Pickled custom objects are not loaded."""
    from modelwright.steps.tensorflow import check_keras_file, check_saved_model, convert

    folder, model, where = opened(context)
    source = context.source(MlflowSource)
    place = _of_tensorflow(folder, model.flavors[str(source.flavor)], where)
    with located(where):
        if is_saved := place.is_dir():
            check_saved_model(place)
        else:
            check_keras_file(place, where, trusted=source.trusted)
        request: dict[str, Any] = {"form": "saved_model" if is_saved else "keras", "model": str(place.resolve())}
        if is_saved:
            request |= {"signature": source.signature, "tags": ("serve",)}
        else:
            request |= {"trusted": source.trusted}
        file = convert(context, {**request, "threads": source.threads}, out / "version", out / "expected.npz")
    return made(read_signature(file), file, context)


def _of_tensorflow(folder: Path, flavor: Mapping[str, Any], where: str) -> Path:
    """The SavedModel's folder, or the Keras file. MLflow names neither of the latter's endings."""
    data = str(flavor.get("saved_model_dir") or flavor.get("data") or "data")
    place = folder / data
    if not place.resolve().is_relative_to(folder.resolve()) or not place.is_dir():
        raise StepError(f"{where}: {FILE} names the folder '{data}', which is not in it", "log the model again")
    if flavor.get("saved_model_dir"):
        return place
    if objects := sorted(place.glob("*custom_objects*")):
        hint = "save the model with model.export(folder) where its code is: source.kind tensorflow"
        raise StepError(f"{where}: its custom objects are a pickle, which is not loaded: {objects[0].name}", hint)
    found = next((place / name for name in _KERAS if (place / name).exists()), None)
    if found is None:
        raise StepError(f"{where}: '{data}' has none of {', '.join(_KERAS)}", "log the model again")
    return found


def _loaded(folder: Path, where: str) -> Any:
    try:
        import mlflow.pytorch
    except ImportError as error:
        raise StepError(f"{where}: needs mlflow: {error}", "pip install 'modelwright[mlflow]'") from None
    try:
        return mlflow.pytorch.load_model(str(folder), map_location="cpu")
    except Exception as error:  # a pickle fails in any way
        reason = " ".join(str(error).split())[:300]
        hint = "the class of the module must be importable: log it with code_paths, or put it into the builder's folder"
        raise StepError(f"{where}: cannot be loaded: {type(error).__name__}: {reason}", hint) from error


def opened(context: StepContext) -> tuple[Path, MlModel, str]:
    """(the folder, its MLmodel, where messages say that it is)."""
    source = context.source(MlflowSource)
    field, place = source.place
    where = f"{context.builder.file}: {field}"
    folder = source_path(context, field, place, folder=True)
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise StepError(f"{where}: {place} has no {FILE} that reads", "name a folder that MLflow wrote") from None
    model = parse_mlmodel(text, f"{where}: {FILE}")
    if source.flavor not in model.flavors:
        raise StepError(f"{where}: has no flavour {source.flavor}: it has {', '.join(sorted(model.flavors))}")
    return folder, model, where


def file_inside(folder: Path, name: str, where: str) -> Path:
    """A file of the model. Raises StepError for one that lies elsewhere, or is not there."""
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise StepError(f"{where}: {FILE} names the file '{name}', which is not in the folder", "log the model again")
    return file
