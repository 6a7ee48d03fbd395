"""A Triton repository as someone writes it by hand: what adoption is tried on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.conftest import PYTHON_MODEL_PY, doubling_onnx

CLASSIFIER = """
# Served to the shop; ask before you change it.
name: "classifier"
backend: "onnxruntime"
max_batch_size: 8
version_policy: { all { } }
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
instance_group [ { count: 1 kind: KIND_CPU } ]
model_warmup [
  { name: "w" batch_size: 1 inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "x.bin" } } }
]
"""

PLUS = """
backend: "python"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "names.txt" } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""

COUNTER = """
backend: "python"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "sum" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  oldest { max_candidate_sequences: 4 }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } ] },
    { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
}
"""

COUNTER_PY = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        answers = []
        for request in requests:
            key = int(pb_utils.get_input_tensor_by_name(request, "ID").as_numpy().ravel()[0])
            start = pb_utils.get_input_tensor_by_name(request, "START").as_numpy().ravel()[0]
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            self.sums[key] = (0 if start else self.sums[key]) + int(x.ravel()[0])
            total = np.full(x.shape, self.sums[key], np.int32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("sum", total)]))
        return answers
"""

CHAIN = """
name: "chain"
platform: "ensemble"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
ensemble_scheduling {
  step [
    { model_name: "classifier" model_version: 3 input_map { key: "x" value: "x" } output_map { key: "y" value: "middle" } },
    { model_name: "plus" model_version: -1 input_map { key: "x" value: "middle" } output_map { key: "y" value: "y" } }
  ]
}
"""


def write(folder: Path, **files: str | bytes) -> None:
    """Files of one model; `_` before the last part stands for '.', `__` for '/': config_pbtxt, warmup__x_bin."""
    for name, content in files.items():
        parts = [part.rpartition("_") for part in name.split("__")]
        path = folder.joinpath(*(f"{stem}.{suffix}" if stem else suffix for stem, _, suffix in parts))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def classifier(root: Path) -> Path:
    """Two versions of an ONNX model, x * 2 and x * 5, with labels and warm-up data."""
    folder = root / "classifier"
    data = np.array([1, 2], np.float32).tobytes()
    write(folder, config_pbtxt=CLASSIFIER, labels_txt="cat\ndog\n", warmup__x_bin=data)
    for number, factor in ((3, 2.0), (7, 5.0)):
        (folder / str(number)).mkdir()
        doubling_onnx(folder / str(number) / "model.onnx", factor)
    return folder


def plus(root: Path) -> Path:
    write(root / "plus", config_pbtxt=PLUS, names_txt="one\ntwo\n")
    (root / "plus/1").mkdir()
    (root / "plus/1/model.py").write_text(PYTHON_MODEL_PY)
    return root / "plus"


def counter(root: Path) -> Path:
    write(root / "counter", config_pbtxt=COUNTER)
    (root / "counter/1").mkdir()
    (root / "counter/1/model.py").write_text(COUNTER_PY)
    return root / "counter"


def chain(root: Path) -> Path:
    """An ensemble, whose version is an empty directory."""
    write(root / "chain", config_pbtxt=CHAIN)
    (root / "chain/1").mkdir()
    return root / "chain"


MODELS: tuple[Callable[[Path], Path], ...] = (classifier, plus, counter, chain)


def hand_made(root: Path) -> Path:
    root.mkdir()
    for make in MODELS:
        make(root)
    return root


def state(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything that can be seen of a tree without following its links: kind, time of change, content."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        stat = path.lstat()
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path)] = (stat.st_mode, stat.st_mtime_ns + stat.st_ctime_ns, content)
    return found
