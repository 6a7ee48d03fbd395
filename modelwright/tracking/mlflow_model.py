"""A published version as a model of MLflow: the files that MLflow has beside the model's own.

A version with `model.onnx` is of the flavour onnx: `mlflow.onnx.load_model("models:/digits/3")` loads it, and so does
source.kind mlflow of another project. Other versions have their files only.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from modelwright.facts.made import OnnxTensor
from modelwright.kinds.mlmodel import FILE
from modelwright.repository.manifest import Manifest
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.layout import ABOUT

_GRAPH = "model.onnx"
_CONDA, _PYTHON, _REQUIREMENTS = "conda.yaml", "python_env.yaml", "requirements.txt"
_NOT_OF_NUMPY = "BF16"


def version_files(manifest: Manifest, folder: Path) -> dict[str, bytes | Path]:
    """The files that a version is, and those that make it a model of MLflow: name → content."""
    own: dict[str, bytes | Path] = {name: folder / name for name in manifest.files if name not in ABOUT}
    return own | (_of_onnx(manifest) if manifest.made.signature and _GRAPH in own else {})


def _of_onnx(manifest: Manifest) -> dict[str, bytes | Path]:
    pins = [f"onnxruntime=={manifest.target.onnxruntime}", *_installed("onnx"), *_installed("mlflow")]
    python = manifest.target.python
    environment = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": pins}],
    }
    virtual = {"python": python, "build_dependencies": ["pip"], "dependencies": [f"-r {_REQUIREMENTS}"]}
    return {
        FILE: _yaml(_mlmodel(manifest, python)),
        _CONDA: _yaml(environment),
        _PYTHON: _yaml(virtual),
        _REQUIREMENTS: "".join(f"{pin}\n" for pin in pins).encode(),
    }


def _mlmodel(manifest: Manifest, python: str) -> dict[str, Any]:
    onnx = "".join(_installed("onnx")).partition("==")[2]
    loaded = {"loader_module": "mlflow.onnx", "data": _GRAPH, "python_version": python}
    found: dict[str, Any] = {
        "artifact_path": "version",
        "flavors": {
            "onnx": {"data": _GRAPH, "onnx_version": onnx, "providers": ["CPUExecutionProvider"], "code": None},
            "python_function": {**loaded, "env": {"conda": _CONDA, "virtualenv": _PYTHON}},
        },
        "metadata": {"modelwright.version_digest": manifest.version_digest},
        "mlflow_version": "".join(_installed("mlflow")).partition("==")[2],
        "model_uuid": manifest.version_digest[:32],
        "utc_time_created": f"{manifest.created:%Y-%m-%d %H:%M:%S.%f}",
    }
    return found | _signature(manifest)


def _signature(manifest: Manifest) -> dict[str, Any]:
    """None for tensors that have no type in numpy, or no shape."""
    signature = manifest.made.signature
    if signature is None or any(
        tensor.dtype not in BY_NAME or tensor.dtype == _NOT_OF_NUMPY
        for tensor in (*signature.inputs, *signature.outputs)
    ):
        return {}
    sides = {"inputs": signature.inputs, "outputs": signature.outputs}
    return {"signature": {side: json.dumps([_tensor(item) for item in items]) for side, items in sides.items()}}


def _tensor(tensor: OnnxTensor) -> dict[str, Any]:
    shape = [dim if isinstance(dim, int) else -1 for dim in tensor.dims]
    spec = {"dtype": BY_NAME[tensor.dtype].numpy, "shape": shape}
    return {"name": tensor.name, "type": "tensor", "tensor-spec": spec}


def _installed(package: str) -> list[str]:
    """`onnx==1.21.0`, without what only this machine's build of it has."""
    try:
        return [f"{package}=={re.sub(r'[+].*', '', version(package))}"]
    except PackageNotFoundError:
        return []


def _yaml(data: Any) -> bytes:
    return yaml.safe_dump(data, sort_keys=True, default_flow_style=False).encode()
