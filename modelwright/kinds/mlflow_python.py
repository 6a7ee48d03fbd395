"""The flavour python_function of source.kind mlflow: a PythonModel, which Triton's Python backend runs.

MLflow itself is not vendored: the version has a stand-in of the class that such a model derives from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelwright.errors import SpecError
from modelwright.kinds.mlmodel import MlModel
from modelwright.kinds.origin import SourceFiles
from modelwright.kinds.python import Vendoring, lock_key, lock_of
from modelwright.kinds.recipe import Recipe
from modelwright.kinds.step import Step, StepFunction

if TYPE_CHECKING:
    from modelwright.project.spec import ModelSpec

PYTHON = "python_function"
LOADER = "mlflow.pyfunc.model"  # that MLflow loads a PythonModel by
STEP = "python"
_FUNCTION = StepFunction("mlflow_python", "modelwright.steps.mlflow_python:run")
_COMPRESSED = ("lzma", "bzip2", "gzip")
_MLFLOW = re.compile(r"mlflow([-_.][A-Za-z0-9]+)?\b", re.IGNORECASE)


def not_taken(model: MlModel) -> str:
    """Why the flavour of a model is not taken; '' where it is."""
    flavor = model.flavors[PYTHON]
    loader = flavor.get("loader_module")
    if loader != LOADER:
        return f"its {PYTHON} is loaded by {loader}, and not as a PythonModel, by {LOADER}"
    if flavor.get("model_code_path"):
        return "it is a model from code, which asks MLflow itself to load it, and not a pickled PythonModel"
    if flavor.get("python_model_compression") not in (None, "", *_COMPRESSED):
        return f"python_model_compression is none of {', '.join(_COMPRESSED)}"
    if not model.inputs and any(entry.get("type") != "any" for entry in _entries(model)):
        return "its signature has columns of a data frame, and Triton has tensors"
    if len(model.inputs) > 1 and not all(tensor.name for tensor in model.inputs):
        return "its signature has several inputs without names"
    return ""


def _entries(model: MlModel) -> list[dict[str, Any]]:
    """The inputs of the signature, of any kind."""
    text = model.signature.get("inputs")
    found: list[dict[str, Any]] = json.loads(text) if text else []
    return found


def check_declared(spec: ModelSpec, requirements: Sequence[str], where: str) -> None:
    """Raise SpecError for a model.yaml that no PythonModel can be served by."""
    if asked := next((text for text in requirements if _MLFLOW.match(text.strip())), None):
        hint = "leave it out: the version has a stand-in of mlflow.pyfunc.PythonModel"
        raise SpecError(f"{where}: requirements: {asked}: MLflow is not vendored", hint)
    if other := next((tensor for tensor in (*spec.inputs, *spec.outputs) if tensor.dtype == "BF16"), None):
        raise SpecError(f"{where}: '{other.name}' is BF16, which numpy does not have", "declare FP32")


def without_mlflow(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """(what is vendored, what is left out) of a model's requirements.txt: MLflow, numpy, and options of pip."""
    texts = [line.partition(" #")[0].strip() for line in lines]
    asked = [text for text in texts if text and not text.startswith("#")]
    left = [text for text in asked if _MLFLOW.match(text) or re.match(r"-|numpy\b", text)]
    return [text for text in asked if text not in left], left


def in_python(recipe: Recipe, source: Vendoring, files: SourceFiles, own: Mapping[str, Any]) -> Step:
    """The step that puts the version together."""
    config = {**own, **recipe.tensors, "requirements": list(source.requirements), "python": recipe.target.python}
    if lock := lock_of(recipe.builder, source, recipe.target):
        config["lock"] = lock_key(lock)
    return recipe.step(STEP, _FUNCTION, config=config, data=dict(files.data), needs=files.needs)
