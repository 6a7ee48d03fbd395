"""Small repositories, written down as what they are: a path, and what lies there.

    {"m/config.pbtxt": 'backend: "python"', "m/1/model.py": MODEL_PY, "m/2": Link("1")}

Paths are relative to the repository's root, and the first component is the model's name. `../outside/…` lies beside the
repository, for links that leave it. Nothing here knows what a server or a linter makes of a tree.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

OUTSIDE = "../outside"

# The least that the Python backend takes. Whatever the configuration says, this loads: nothing reads it. A warm-up needs
# the right number of answers; a server that gets another one may crash.
MODEL_PY = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""

# The same for a decoupled model, which answers through senders.
DECOUPLED_PY = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            request.get_response_sender().send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

OnnxTensor = tuple[str, str, Sequence[Any]]  # (name, "TYPE_FP32", dims); a str dim is a variable one


@dataclass(frozen=True)
class Link:
    """A symbolic link, or a second name of the same file."""

    target: str  # as the link holds it; for a hard link, relative to the link's folder
    hard: bool = False


@dataclass(frozen=True)
class Dir:
    """An empty directory."""


@dataclass(frozen=True)
class Onnx:
    """A model.onnx with these inputs and outputs. What it computes is of no interest: it is loaded and never run."""

    inputs: tuple[OnnxTensor, ...] = (("x", "TYPE_FP32", ("batch", 4)),)
    outputs: tuple[OnnxTensor, ...] = (("y", "TYPE_FP32", ("batch", 4)),)
    ir: int = 8
    opset: int = 17
    initializers: tuple[OnnxTensor, ...] = ()  # overridable where an input has the same name
    external: str = ""  # where an initializer's data lies, as the file names it

    def data(self) -> bytes:
        return _onnx_bytes(self)


Content = str | bytes | Link | Dir | Onnx | Callable[[], bytes]
Tree = Mapping[str, Content]


def write(tree: Tree, root: Path) -> None:
    """Write a tree below `root`, and what it has outside beside it. Links come last, so that their order is no matter."""
    root.mkdir(parents=True, exist_ok=True)
    for links in (False, True):
        for name, content in tree.items():
            if isinstance(content, Link) is links:
                _write(_place(root, name), content)


def clear(root: Path) -> None:
    """Remove everything that `write` made. `root` itself stays."""
    for path in [*root.iterdir(), _place(root, OUTSIDE)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def models(tree: Tree) -> list[str]:
    """The directories at the root, in the tree's order: each is a model to a server."""
    found = dict.fromkeys(name.split("/")[0] for name, content in tree.items() if _is_in_model(name, content))
    return [name for name in found if name != ".."]


def _is_in_model(name: str, content: Content) -> bool:
    return "/" in name or isinstance(content, Dir | Link)


def _place(root: Path, name: str) -> Path:
    if name.startswith(OUTSIDE):
        return root.parent / name.removeprefix("../")
    return root / name


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Dir):
        path.mkdir(exist_ok=True)
    elif isinstance(content, Link):
        _link(path, content)
    else:
        path.write_bytes(_bytes(content))


def _link(path: Path, link: Link) -> None:
    if link.hard:
        os.link(path.parent / link.target, path)
    else:
        path.symlink_to(link.target)


def _bytes(content: str | bytes | Onnx | Callable[[], bytes]) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode("utf-8", "surrogateescape")
    return content.data() if isinstance(content, Onnx) else content()


@cache
def _onnx_bytes(wanted: Onnx) -> bytes:
    """Imports onnx late: most trees need none."""
    from onnx import helper

    from modelwright.triton.dtypes import BY_CONFIG

    def info(tensor: OnnxTensor) -> Any:
        return helper.make_tensor_value_info(tensor[0], BY_CONFIG[tensor[1]].onnx, tensor[2])

    nodes = [node for output in wanted.outputs for node in _producer(wanted, output)]
    if wanted.external:  # onnxruntime does not read data that nothing uses
        nodes[0] = helper.make_node("Add", [wanted.inputs[0][0], wanted.initializers[0][0]], [wanted.outputs[0][0]])
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(tensor) for tensor in wanted.inputs],
        [info(tensor) for tensor in wanted.outputs],
        [_initializer(wanted, tensor) for tensor in wanted.initializers],
    )
    opsets = [helper.make_opsetid("", wanted.opset)]
    data: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=wanted.ir).SerializeToString()
    return data


def _producer(wanted: Onnx, output: OnnxTensor) -> list[Any]:
    """Nodes that make `output`, with a shape that onnxruntime cannot infer unless an input has the same one."""
    from onnx import helper

    from modelwright.triton.dtypes import BY_CONFIG

    name, data_type, dims = output
    for source, source_type, source_dims in wanted.inputs:
        if (source_type, tuple(source_dims)) == (data_type, tuple(dims)):
            return [helper.make_node("Identity", [source], [name])]
    source = wanted.inputs[0][0] if wanted.inputs else wanted.initializers[0][0]
    return [
        helper.make_node("Shape", [source], [f"{name}_shape"]),
        helper.make_node("NonZero", [f"{name}_shape"], [f"{name}_nonzero"]),
        helper.make_node("Squeeze", [f"{name}_nonzero"], [f"{name}_dims"]),
        helper.make_node("Cast", [source], [f"{name}_cast"], to=BY_CONFIG[data_type].onnx),
        helper.make_node("Reshape", [f"{name}_cast", f"{name}_dims"], [name]),
    ]


def _initializer(wanted: Onnx, tensor: OnnxTensor) -> Any:
    from math import prod

    from onnx import TensorProto, helper

    from modelwright.triton.dtypes import BY_CONFIG

    name, data_type, dims = tensor
    made = helper.make_tensor(name, BY_CONFIG[data_type].onnx, dims, [0] * prod(dims))
    if wanted.external:
        _make_external(made, wanted.external, TensorProto.EXTERNAL)
    return made


def _make_external(tensor: Any, location: str, external: int) -> None:
    tensor.ClearField("float_data")
    tensor.data_location = external
    for key, value in (("location", location), ("offset", "0"), ("length", str(4 * tensor.dims[0]))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
