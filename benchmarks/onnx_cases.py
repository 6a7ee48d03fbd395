"""The backend tests that come with the package onnx, as builders.

Each is an ONNX file with inputs, and the outputs that the ONNX project says they give. 1,800 of them lie in the wheel:
one or more for each operator (`node`), small models (`simple`, `pytorch-converted`, `pytorch-operator`), and nine
classifiers with constant weights (`light`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
_LIGHT = "light"
_DATA_SET = "test_data_set_0"
_RTOL, _ATOL = 1e-3, 1e-7  # of the package's own runner, unless a test has others

_YAML = """\
source: {{kind: onnx, path: model.onnx}}
samples: data:samples
reference: data:reference
files: {files}
gates: {{tolerance: {{rtol: {rtol}, atol: {atol}}}}}
"""
_CODE = '''\
"""The test's own inputs, and the outputs that it expects."""

import onnx
from onnx import numpy_helper


def samples():
    return read("input", {inputs!r})


def reference(samples):
    return read("output", {outputs!r})


def read(side, names):
    return {{name: numpy_helper.to_array(onnx.load_tensor(f"{{side}}_{{i}}.pb"))[None] for i, name in enumerate(names)}}
'''
_PLACEHOLDER = """\
import numpy as np


def samples():
    return {{name: np.zeros((1, 1), np.float32) for name in {inputs!r}}}


def reference(samples):
    return {{name: np.zeros((1, 1), np.float32) for name in {outputs!r}}}
"""


@dataclass(frozen=True)
class BackendTest:
    """One test. `inputs` and `outputs` name its graph's. Where one is no tensor, the builder has made-up samples."""

    kind: str
    name: str
    model: Path
    data: tuple[Path, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rtol: float
    atol: float
    has_tensors_only: bool

    @property
    def builder(self) -> str:
        return self.name.removeprefix("test_")

    def write_builder(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        shutil.copyfile(self.model, folder / "model.onnx")
        for file in self.data:
            shutil.copyfile(file, folder / file.name)
        files = [file.name for file in self.data]
        (folder / "model.yaml").write_text(_YAML.format(files=json.dumps(files), rtol=self.rtol, atol=self.atol))
        code = _CODE if self.has_tensors_only else _PLACEHOLDER
        (folder / "data.py").write_text(code.format(inputs=list(self.inputs), outputs=list(self.outputs)))

    def tensors(self, side: str) -> dict[str, Array]:
        """What goes in ("input"), or what should come out ("output"). Only where all of it are tensors."""
        import onnx
        from onnx import numpy_helper

        names = self.inputs if side == "input" else self.outputs
        files = {file.name: file for file in self.data}
        return {
            name: numpy_helper.to_array(onnx.load_tensor(files[f"{side}_{index}.pb"]))
            for index, name in enumerate(names)
        }


def backend_tests(scratch: Path) -> list[BackendTest]:
    """All of them that carry data, in the order of their names. Inputs of `light` are made below `scratch`."""
    import onnx.backend.test

    root = Path(onnx.backend.test.__file__).parent / "data"
    found = [test for kind in _KINDS for test in _of_kind(root / kind)]
    return [*found, *_light(root / _LIGHT, scratch)]


def _of_kind(root: Path) -> Iterator[BackendTest]:
    for folder in sorted(root.iterdir()):
        data = folder / _DATA_SET
        if (folder / "model.onnx").is_file() and data.is_dir():
            yield _test(root.name, folder.name, folder / "model.onnx", sorted(data.glob("*.pb")), _limits(folder))


def _limits(folder: Path) -> dict[str, float]:
    file = folder / "data.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def _light(root: Path, scratch: Path) -> Iterator[BackendTest]:
    """The inputs of these are made by the package's runner: as many even steps from 0 to 1 as there are values."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    for model in sorted(root.glob("*.onnx")):
        graph = onnx.load(model).graph
        constants = {tensor.name for tensor in graph.initializer}
        (image,) = (value for value in graph.input if value.name not in constants)
        shape = [dim.dim_value or 1 for dim in image.type.tensor_type.shape.dim]
        values = np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)
        folder = scratch / model.stem
        folder.mkdir(parents=True)
        tensor = numpy_helper.from_array(values.astype(np.float32), image.name)
        (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
        shutil.copyfile(root / f"{model.stem}_output_0.pb", folder / "output_0.pb")
        yield _test(_LIGHT, f"test_{model.stem}", model, sorted(folder.glob("*.pb")), {})


def _test(kind: str, name: str, model: Path, data: Sequence[Path], limits: dict[str, float]) -> BackendTest:
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    return BackendTest(
        kind,
        name,
        model,
        tuple(data),
        tuple(value.name for value in inputs),
        tuple(value.name for value in graph.output),
        rtol=limits.get("rtol", _RTOL),
        atol=limits.get("atol", _ATOL),
        has_tensors_only=all(value.type.HasField("tensor_type") for value in (*inputs, *graph.output)),
    )
