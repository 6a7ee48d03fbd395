"""What the gate is tried on: a model, the same with a tenth more compute, and the same with another config.

versions(folder)  a project whose model has version 1, version 2, which computes 10 % longer, and version 3, a copy of 1
configs(folder)   two repositories with the same version 1, of which one has a config that serves a fifth less
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from benchmarks import projects, timing

MODEL = "convolutions"
LAYERS, MORE_LAYERS = 60, 68
_CHANNELS, _SIDE = 16, 16
_DATA = f"""\
import numpy as np


def samples():
    return {{"x": np.random.default_rng(1).standard_normal((64, 1, {_SIDE}, {_SIDE}), dtype=np.float32)}}
"""


def versions(root: Path) -> Path:
    project = projects.empty_project(root)
    _write(project, LAYERS, {})
    timing.build(project)
    projects.settle()
    _write(project, MORE_LAYERS, {})
    timing.build(project)
    _copy_version(project / "model_repository" / MODEL, 1, 3)
    return project


def _copy_version(model: Path, version: int, copy: int) -> None:
    """The same version once more: its instance is a process of its own, as a new version's is."""
    shutil.copytree(model / str(version), model / str(copy))
    manifest = model / str(copy) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": copy}))


def configs(root: Path, usually: dict[str, object], changed: dict[str, object]) -> tuple[Path, Path]:
    """The project, whose repository has the changed `serving`, and the repository with the usual one."""
    project = projects.empty_project(root)
    _write(project, LAYERS, usually)
    timing.build(project)
    usual = root / "baseline"
    shutil.copytree(project / "model_repository", usual)
    projects.settle()
    _write(project, LAYERS, changed)
    timing.build(project)
    return project, usual


def _write(project: Path, layers: int, serving: dict[str, object]) -> None:
    folder = project / "builders" / MODEL
    folder.mkdir(exist_ok=True)
    usual = {"max_batch_size": 64, "instance_group": [{"count": 1, "kind": "KIND_CPU"}]}
    spec = {
        "source": {"kind": "onnx", "path": "model.onnx"},
        "samples": "data:samples",
        "serving": usual | {"parameters": {"intra_op_thread_count": {"string_value": "1"}}} | serving,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(spec))
    (folder / "data.py").write_text(_DATA)
    _save_layers(folder / "model.onnx", layers)


def _save_layers(path: Path, layers: int) -> None:
    """float32 (batch, 1, 16, 16) through equal 3 x 3 convolutions; all in cache, so that memory makes no noise."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(7)
    nodes, weights, value, channels = [], [], "x", 1
    for number in range(layers):
        kernel = generator.standard_normal((_CHANNELS, channels, 3, 3), dtype=np.float32)
        weights.append(numpy_helper.from_array(kernel * np.float32((2 / (9 * channels)) ** 0.5), f"w{number}"))
        nodes.append(helper.make_node("Conv", [value, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        value, channels = f"r{number}", _CHANNELS
    nodes.append(helper.make_node("ReduceMean", [value, "axes"], ["y"], keepdims=0))
    weights.append(numpy_helper.from_array(np.array([2, 3], dtype=np.int64), "axes"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, _SIDE, _SIDE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", _CHANNELS])
    graph = helper.make_graph(nodes, "convolutions", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
