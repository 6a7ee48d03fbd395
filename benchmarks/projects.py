"""Projects to measure on, in temporary folders: copies of the shipped one, and made-up ones."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The engine does not remember what it read of a file that changed less than this ago (digest._RACY_NS, with some room).
SETTLED_S = 2.5

_ONNX_YAML = """\
source: {kind: onnx, path: model.onnx}
samples: data:samples
serving: {max_batch_size: 8}
"""
_ONNX_DATA = """\
import numpy as np


def samples():
    return {{"x": np.arange(8, dtype=np.float32).reshape(4, 2) + {number}}}
"""


def empty_project(root: Path) -> Path:
    """The shipped project without builders, its state its own, but for the local server's environment."""
    (root / "builders").mkdir(parents=True)
    (root / ".modelwright").mkdir()
    shutil.copy(ROOT / "modelwright.toml", root)
    shutil.copytree(ROOT / "templates", root / "templates")
    server = ROOT / ".modelwright" / "server"
    server.mkdir(parents=True, exist_ok=True)
    (root / ".modelwright" / "server").symlink_to(server)
    return root


def shipped_project(root: Path, names: Iterable[str] = ()) -> Path:
    """A copy with the shipped builders, or some of them; nothing built."""
    empty_project(root)
    for folder in sorted((ROOT / "builders").iterdir()):
        if (folder / "model.yaml").is_file() and (not names or folder.name in names):
            copy_builder(folder.name, root / "builders" / folder.name)
    return root


def copy_builder(name: str, target: Path) -> Path:
    shutil.copytree(ROOT / "builders" / name, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def take_store(root: Path) -> None:
    """Take over what this checkout's builders made, if anything: keys are the same, so a copy need not train again."""
    store = ROOT / ".modelwright" / "store"
    if store.is_dir():
        shutil.copytree(store, root / ".modelwright" / "store", ignore=shutil.ignore_patterns("tmp"))


def add_onnx_builder(root: Path, number: int) -> None:
    """A builder that shares no artefact with another: its own graph (one multiplication), its own samples."""
    folder = root / "builders" / f"model_{number:04}"
    folder.mkdir()
    (folder / "model.yaml").write_text(_ONNX_YAML)
    (folder / "data.py").write_text(_ONNX_DATA.format(number=number))
    save_product(folder / "model.onnx", float(number + 1))


def settle() -> None:
    time.sleep(SETTLED_S)


def save_product(path: Path, factor: float, columns: int = 2) -> None:
    """y = x · factor, float32 (batch, columns)."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", columns]) for name in "xy")
    weights = [numpy_helper.from_array(np.array([factor], dtype=np.float32), "factor")]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "product", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
