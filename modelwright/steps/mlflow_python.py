"""The step of source.kind mlflow, flavour python_function: a version of Triton's Python backend.

version/model.py            loads the model and asks it: the same for every such model (mlflow_python_model.py)
version/mlflow_model.json   what of MLmodel and model.yaml it reads
version/mlflow_model/       the folder that MLflow wrote
version/site-packages/      the wheels of requirements.lock

The pickle is not loaded here: the server's own process does that.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.digest import list_tree
from modelwright.errors import StepError
from modelwright.facts.made import Made
from modelwright.kinds.mlflow import MlflowSource
from modelwright.kinds.mlflow_python import LOADER, PYTHON, not_taken
from modelwright.kinds.mlmodel import MlModel
from modelwright.kinds.trust import check_trusted
from modelwright.steps.context import StepContext
from modelwright.steps.mlflow import file_inside, opened
from modelwright.steps.python import PACKAGES, lock_in_key, vendored
from modelwright.triton.estimator_pickles import pickle_header

_FOLDER = "mlflow_model"
# Modules that model.py makes, for pickles that name them.
_STOOD_IN = ("mlflow.pyfunc", LOADER, "mlflow.models.signature")


def run(context: StepContext, out: Path) -> Made:
    """Put the version's files together. Raises StepError for a pickle that is not trusted, or cannot load there."""
    folder, model, where = opened(context)
    source = context.source(MlflowSource)
    instead = "log the model as ONNX: mlflow.onnx.log_model"
    check_trusted(source.trusted, where, "a PythonModel, a pickle", instead)
    if reason := not_taken(model):
        raise StepError(f"{where}: {reason}", instead)
    flavor = model.flavors[PYTHON]
    compiled = _check_pickle(context, file_inside(folder, str(flavor.get("python_model")), where), flavor, where)
    version = out / "version"
    for name, file in list_tree(folder).items():
        if not _is_inside(file, folder):
            raise StepError(f"{where}: {name} is a link out of the folder", "copy the file itself")
        target = version / _FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    shutil.copyfile(Path(__file__).with_name("mlflow_python_model.py"), version / "model.py")
    told = json.dumps({**_told(context, folder, model, where), "python": compiled}, indent=1, default=str)
    (version / f"{_FOLDER}.json").write_text(told + "\n")
    lock = lock_in_key(context, source)
    return vendored(context, lock, version / PACKAGES, out) if lock and lock.wheels else Made()


def _told(context: StepContext, folder: Path, model: MlModel, where: str) -> dict[str, Any]:
    """What model.py reads."""
    flavor = model.flavors[PYTHON]
    artifacts = _artifacts(flavor, where)
    for path in (*artifacts.values(), *filter(None, [flavor.get("code")])):
        if not _is_inside(folder / str(path), folder) or not (folder / str(path)).exists():
            raise StepError(f"{where}: MLmodel names '{path}', which is not in the folder", "log the model again")
    unnamed = len(context.builder.spec.inputs) == 1 and not any(tensor.name for tensor in model.inputs)
    return {
        "pickle": flavor["python_model"], "compression": flavor.get("python_model_compression") or "",
        "code": flavor.get("code") or "", "artifacts": artifacts, "config": flavor.get("config") or {},
        "one_array": unnamed,
    }  # fmt: skip


def _artifacts(flavor: Mapping[str, Any], where: str) -> dict[str, str]:
    try:
        return {str(name): str(item["path"]) for name, item in (flavor.get("artifacts") or {}).items()}
    except (AttributeError, KeyError, TypeError):
        raise StepError(f"{where}: MLmodel: artifacts: damaged", "log the model again") from None


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _check_pickle(context: StepContext, file: Path, flavor: Mapping[str, Any], where: str) -> str:
    """The Python that alone can load a pickle; '' for any.

    Raises StepError for a pickle that needs MLflow itself, another Python, or a cloudpickle that is not vendored.
    """
    names, python = pickle_header(file).modules, context.target.python
    for name in names:
        if name.partition(".")[0] == "mlflow" and name not in _STOOD_IN:
            hint = "derive the class from mlflow.pyfunc.PythonModel, and annotate predict without types of MLflow"
            raise StepError(f"{where}: the model refers to {name}, and MLflow itself is not vendored", hint)
    if not any(name.partition(".")[0] == "cloudpickle" for name in names):
        return ""
    made = ".".join(str(flavor.get("python_version", "")).split(".")[:2])
    if made != python:
        reason = f"{where}: holds code that Python {made or '?'} compiled, and the target's Python is {python}"
        raise StepError(reason, f"log it with Python {python}, or log the file with its class: code_paths=[…]")
    if not any(re.match(r"cloudpickle\b", text.strip()) for text in context.source(MlflowSource).requirements):
        pin = f"cloudpickle=={flavor['cloudpickle_version']}" if "cloudpickle_version" in flavor else "cloudpickle"
        raise StepError(f"{where}: needs cloudpickle to be loaded", f"write under source: requirements: [{pin}]")
    return python
