"""A rule's example as files: the model `m` of a repository, with the fault or with the fix.

The tests lint every example and load it into the real server; `--explain` and docs/lint.md show its lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

from modelwright.lint.rule import (
    Absent,
    Example,
    ExampleFiles,
    FileContent,
    Folder,
    Locked,
    Onnx,
    Symlink,
    TensorRtPlan,
    Zip,
)
from modelwright.onnx.identity import identity_model
from modelwright.triton.layout import CONFIG

PYTHON_MODEL = """class TritonPythonModel:
    def execute(self, requests):
        raise NotImplementedError
"""
_TENSORS = {
    "max_batch_size": "max_batch_size: 8",
    "input": 'input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ] } ]',
    "output": 'output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ] } ]',
}
# {field: its lines}, so that an example can replace one.
_CONFIGS: dict[str, dict[str, str]] = {
    "python": {"backend": 'backend: "python"', **_TENSORS},
    "onnxruntime": {
        "backend": 'backend: "onnxruntime"',
        **_TENSORS,
        "instance_group": "instance_group [ { kind: KIND_CPU, count: 1 } ]",
    },
    "tensorrt": {"backend": 'backend: "tensorrt"', **_TENSORS},
    "pytorch": {"backend": 'backend: "pytorch"', **_TENSORS},
    "ensemble": {"platform": 'platform: "ensemble"', **_TENSORS},
}
_PART = "\n".join(_CONFIGS["python"].values())
_TWO = 'input [ { name: "a", data_type: TYPE_FP32, dims: [ 2 ] }, { name: "b", data_type: TYPE_FP32, dims: [ 2 ] } ]'
_FILES: dict[str, dict[str, FileContent]] = {
    "python": {"1/model.py": PYTHON_MODEL},
    "onnxruntime": {"1/model.onnx": Onnx()},
    "tensorrt": {},
    "pytorch": {},
    "ensemble": {
        "1": Folder(),
        "/part/config.pbtxt": f"{_PART}\n",
        "/part/1/model.py": PYTHON_MODEL,
        "/stream/config.pbtxt": f"{_PART}\nmodel_transaction_policy {{ decoupled: true }}\n",
        "/stream/1/model.py": PYTHON_MODEL,
        "/two/config.pbtxt": "\n".join([*({**_CONFIGS["python"], "input": _TWO}).values(), ""]),
        "/two/1/model.py": PYTHON_MODEL,
    },
}
_FIELD = re.compile(r"^(\w+)", re.MULTILINE)


def config_text(example: Example, lines: str) -> str:
    """The base config, with `lines` in place of the fields that they set."""
    replaced = set(_FIELD.findall(lines))
    kept = [text for name, text in _CONFIGS[example.base].items() if name not in replaced]
    return "\n".join([*kept, lines]).strip() + "\n"


def base_text(base: str) -> str:
    return "\n".join(_CONFIGS[base].values()) + "\n"


def files_of(example: Example, *, fault: bool) -> ExampleFiles:
    """Every file of the example, relative to the repository."""
    lines = example.fault if fault else example.fixed
    own = example.fault_files if fault else example.fixed_files
    files: dict[str, FileContent] = {
        CONFIG: config_text(example, lines),
        **_FILES[example.base],
        **example.files,
        **own,
    }
    return {name[1:] if name.startswith("/") else f"m/{name}": content for name, content in files.items()}


def write(files: Mapping[str, FileContent], root: Path) -> None:
    """Write a repository with these files."""
    for name, content in files.items():
        path = root / name
        if isinstance(content, Absent):
            continue
        if isinstance(content, Folder | Locked):
            path.mkdir(parents=True, exist_ok=True, mode=0o755 if isinstance(content, Folder) else 0)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Symlink):
            path.symlink_to(content.target)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_bytes(_bytes(content))


def _bytes(content: bytes | Onnx | TensorRtPlan | Zip) -> bytes:
    if isinstance(content, Onnx):
        return onnx_bytes(content)
    if isinstance(content, TensorRtPlan):
        return b"ftrt" + bytes(20) + bytes(int(part) for part in content.version.split("."))
    return zip_bytes(content) if isinstance(content, Zip) else content


def zip_bytes(content: Zip) -> bytes:
    """The archive that a Zip stands for."""
    import zipfile

    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in content.names:
            archive.writestr(name, b"")
    return data.getvalue()


def onnx_bytes(content: Onnx) -> bytes:
    """The model that an Onnx stands for."""
    data = identity_model(content.dims, content.dtype, content.opset, content.ir, content.external, content.rows)
    return data[: len(data) // 2] if content.truncated else data
