"""`new --from` a model of an MLflow registry, or a folder that MLflow wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from modelwright.errors import SpecError
from modelwright.fsops import read_text
from modelwright.kinds.mlflow import IN_TENSORFLOW, taken
from modelwright.kinds.mlflow_python import PYTHON, without_mlflow
from modelwright.kinds.mlmodel import FILE, MlModel, SignatureTensor, parse_mlmodel
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.project.uris import is_uri, scheme_of
from modelwright.project.writer import as_yaml

_FOLDER = "mlflow_model"
_DATA = '''"""Samples: requests that the model must answer in the same way for good."""

import numpy as np


def samples():
    random = np.random.default_rng(0)
    return {{{arrays}}}
'''
_NUMPY = {"FP16": "float16", "FP32": "float32", "FP64": "float64"}
_ROWS, _FREE = 8, 4


def recognise(path: Path) -> Seen | None:
    file = path / FILE
    if not file.is_file():
        return None
    try:
        model = parse_mlmodel(read_text(file), str(file))
    except UnicodeDecodeError:
        raise SpecError(f"{file}: is not UTF-8", "copy the folder again") from None
    flavor = taken(model, None, str(path))
    there = ", ".join(sorted(model.flavors))
    return Seen("mlflow", f"an MLflow model of the flavours {there}, taken as {flavor}", path, (model, flavor))


def write(found: Seen, new: NewBuilder) -> Written:
    """model.yaml with the source, and samples by the signature."""
    model, flavor = found.details
    if is_uri(new.uri) and scheme_of(new.uri) in ("models", "runs"):
        place = f"model: {as_yaml(new.uri)}"
    else:
        place = f"path: {as_yaml(new.take(found.path, _FOLDER))}"
    extra = f", flavor: {flavor}" if new.uri and place.startswith("path") else ""
    trusted = flavor not in ("onnx", *IN_TENSORFLOW)
    vendored, left_out = _requirements(found.path) if flavor == PYTHON else ([], [])
    extra += f", requirements: {json.dumps(vendored)}" if vendored else ""
    source = f"source: {{kind: mlflow, {place}{extra}}}"
    arrays = _arrays(model)
    samples = arrays or "    # what a request holds: name → array with a row a sample\n    "
    new.write("model.yaml", "\n".join([*new.head, source, "samples: data:samples", "serving: {max_batch_size: 8}", ""]))
    new.write("data.py", _DATA.format(arrays=samples))
    left = [] if arrays else ["write samples into data.py: the signature does not say what a request holds"]
    if flavor == PYTHON and not all(
        side and all(tensor.name for tensor in side) for side in (model.inputs, model.outputs)
    ):
        left.append("declare inputs and outputs in model.yaml: the signature does not name them as tensors")
    if trusted:
        left.append("it is a pickle, which can run any code: if you trust its maker, write trusted: true under source")
    notes = ["samples are random numbers by its signature: put real ones into data.py"] if arrays else []
    if left_out:
        notes.append(f"of its requirements.txt these are not vendored: {', '.join(left_out)}")
    return Written(tuple(notes), tuple(left), builds=not left, edit="model.yaml" if trusted else "data.py")


def _all_named(tensors: Sequence[SignatureTensor]) -> bool:
    return bool(tensors) and all(tensor.name for tensor in tensors)


def _requirements(folder: Path) -> tuple[list[str], list[str]]:
    """(what a PythonModel needs vendored, what is left out of its requirements.txt)."""
    try:
        return without_mlflow(read_text(folder / "requirements.txt").splitlines())
    except (OSError, UnicodeDecodeError):
        return [], []


def _arrays(model: MlModel) -> str:
    """The dictionary of samples; '' where the signature does not tell."""
    if not model.inputs or not all(tensor.name and tensor.dtype in _NUMPY for tensor in model.inputs):
        return ""
    return "".join(f'\n        "{tensor.name}": {_array(tensor)},' for tensor in model.inputs) + "\n    "


def _array(tensor: SignatureTensor) -> str:
    shape = [_ROWS, *(size if size > 0 else _FREE for size in tensor.dims[1:])]
    return f"random.random({tuple(shape)}, dtype=np.float32).astype(np.{_NUMPY[tensor.dtype]})"


RECOGNISER = Recogniser("MLflow models (a folder, or models:/NAME@ALIAS)", recognise, write)
