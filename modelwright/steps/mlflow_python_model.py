"""Made by modelwright: serves a PythonModel of MLflow, without MLflow.

A pickle names the class that it derives from, mlflow.pyfunc.PythonModel: `_stand_in` makes one that does as little.
"""

from __future__ import annotations

import bz2
import gzip
import inspect
import json
import lzma
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_HERE = Path(__file__).resolve().parent
_MODEL = _HERE / "mlflow_model"
_OPENERS: dict[str, Any] = {"": open, "bzip2": bz2.open, "gzip": gzip.open, "lzma": lzma.open}


class PythonModel:
    """What of MLflow's class a model may use."""

    def load_context(self, context: Any) -> None:
        pass


class PythonModelContext:
    def __init__(self, artifacts: dict[str, str], model_config: Any) -> None:
        self.artifacts, self.model_config = artifacts, model_config


class _TypeHints:
    """What MLflow noted of `predict` when it saved the model. Nobody reads it here."""


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        told = json.loads((_HERE / "mlflow_model.json").read_text(encoding="utf-8"))
        _check_python(told["python"])
        config = json.loads(args["model_config"])
        self._one_array = told["one_array"]
        self._texts = {item["name"] for item in config["input"] if item["data_type"] == "TYPE_STRING"}
        self._types = {
            item["name"]: np.dtype(pb_utils.triton_string_to_numpy(item["data_type"])) for item in config["output"]
        }
        sys.path[:0] = [str(_HERE / "site-packages"), *([str(_MODEL / told["code"])] if told["code"] else [])]
        _stand_in()
        with _OPENERS[told["compression"]](_MODEL / told["pickle"], "rb") as file:
            self._model = pickle.load(file)  # noqa: S301  the builder trusts it
        artifacts = {name: str(_MODEL / path) for name, path in told["artifacts"].items()}
        self._context = PythonModelContext(artifacts, told["config"])
        self._model.load_context(self._context)
        self._takes = inspect.signature(self._model.predict).parameters

    def execute(self, requests: list[Any]) -> list[Any]:
        """A `predict` for each request: rows of different ones are not put together."""
        return [self._response(request) for request in requests]

    def _response(self, request: Any) -> Any:
        try:
            answer = self._predict({tensor.name(): self._array(tensor) for tensor in request.inputs()})
            arrays = {name: self._output(name, value) for name, value in self._by_name(answer).items()}
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, arrays[name]) for name in request.requested_output_names()]
        )

    def _array(self, tensor: Any) -> Any:
        array = tensor.as_numpy()
        if tensor.name() not in self._texts:
            return array
        texts = [text.decode() for text in array.reshape(-1)]
        return np.array([*texts, None], object)[:-1].reshape(array.shape)  # None: never an array of arrays

    def _predict(self, arrays: dict[str, Any]) -> Any:
        given = next(iter(arrays.values())) if self._one_array else arrays
        context = [self._context] if "context" in self._takes else []
        return self._model.predict(*context, given, **({"params": None} if "params" in self._takes else {}))

    def _by_name(self, answer: Any) -> dict[str, Any]:
        """The answer by the names of the outputs: one array, a dictionary, or a sequence in their order."""
        names = list(self._types)
        if isinstance(answer, Mapping):
            if missing := [name for name in names if name not in answer]:
                raise ValueError(f"predict answered {', '.join(map(repr, answer))}, and no {', '.join(missing)}")
            return {name: answer[name] for name in names}
        if len(names) == 1:
            return {names[0]: answer}
        if isinstance(answer, (list, tuple)) and len(answer) == len(names):
            return dict(zip(names, answer, strict=True))
        raise ValueError(f"predict answered one {type(answer).__name__}, and the outputs are {', '.join(names)}")

    def _output(self, name: str, value: Any) -> Any:
        """As it is declared. Raises TypeError for numbers of another kind, such as fractions for an integer."""
        return np.ascontiguousarray(np.asarray(value).astype(self._types[name], casting="same_kind"))


def _check_python(wanted: str) -> None:
    """Raise an error for a pickle with code that this Python would crash on."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wanted not in ("", here):
        hint = f"put a python{wanted} on PATH, remove .modelwright/server, and build again"
        raise pb_utils.TritonModelException(f"its code is of Python {wanted}, and the server runs {here}: {hint}")


def _stand_in() -> None:
    """Modules by MLflow's names, with the classes that any pickled PythonModel may name."""
    own = {"PythonModel": PythonModel, "PythonModelContext": PythonModelContext}
    held: dict[str, dict[str, Any]] = {
        "mlflow": {}, "mlflow.pyfunc": own, "mlflow.pyfunc.model": own,
        "mlflow.models": {}, "mlflow.models.signature": {"_TypeHints": _TypeHints},
    }  # fmt: skip
    for name, classes in held.items():
        module = sys.modules[name] = ModuleType(name)
        module.__dict__.update(classes, __path__=[], __getattr__=_missing(name))
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


def _missing(module: str) -> Any:
    def attribute(name: str) -> Any:
        raise AttributeError(f"{module}.{name}: MLflow is not vendored, mlflow.pyfunc.PythonModel alone is there")

    return attribute
