"""Hand-made repositories with one fault each, or with what looks like one, grouped by what they are about.

A case says what lies on the disk and nothing about right or wrong: the real server's verdicts are recorded in
`verdicts.json` (`python -m tests.lint.differential --record`). Both sides of a bound are cases of their own.

The local server's onnxruntime backend follows the stock one: what it checks, and in which words, is read from that
one's source and was seen by running it (24.10 and 26.06). Ragged batches, `batch_input`, `batch_output` and states it
checks as that one does, and then says that it cannot serve them: such a verdict is `loads`. Where its verdict and that
of the stock backend differ, the stock one's is right, and the local backend is to be mended before a new record.

What the local server cannot exercise, and what therefore has no case here:

* KIND_GPU, KIND_AUTO with `gpus`, `profile`, `optimization.cuda`, `priority`, NVDLA devices beside a GPU: there is none.
* TensorRT, PyTorch, TensorFlow, OpenVINO, DALI and FIL backends, what they complete (tests/lint/test_completion.py), and
  the accelerators inside onnxruntime.
* Fields younger than 24.10, the local server's release, where a newer release takes them.
* `max_batch_size` of TensorRT engines, `cc_model_filenames` on a GPU, `model_operations` libraries.
* The `checksum` agent, which the stock container has.
* Unreadable files: tests run as root, who reads everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from tests.lint.trees import Tree

_OTHER_BACKEND = "the stock container has this backend, the local server has not"
_SHIM = "the local server's onnxruntime backend is a model.py, the stock one a library"
_CONTAINER = "it depends on what lies in the container outside the repository; the linter warns"
_GRAPH = "the linter reads what an ONNX file declares, not whether its graph is sound"
_CODE = "what code does when it runs"
_INFERRED = "the linter loads a model only where its config names a size that the file leaves open"

# Cases that hold the record and not the linter: what the local server says there is its own affair.
EXCUSED = {
    "model/backend tensorrt": _OTHER_BACKEND,
    "model/backend without its library": _OTHER_BACKEND,
    "model/platform pytorch": _OTHER_BACKEND,
    "model/platform tensorflow": _OTHER_BACKEND,
    "model/runtime of onnxruntime": _SHIM,
    "model/runtime model.py of onnxruntime": _SHIM,
    "misc/python environment absent": _CONTAINER,
    "misc/batching strategy absent": _CONTAINER,
    "misc/batching strategy absent, no dynamic batching": _CONTAINER,
    "misc/custom operations absent": _CONTAINER,
    "onnx/operator unknown": _GRAPH,
    "onnx/domain unknown": _GRAPH,
    "onnx/domain undeclared": _GRAPH,
    "onnx/graph with a loose end": _GRAPH,
    "onnx/graph with a name twice": _GRAPH,
    "onnx/output less declared than inferred, config as declared": _INFERRED,
    "warmup/model that fails": _CODE,
    "completion/raises": _CODE,
    "completion/completes nothing of an input": _CODE,
}


@dataclass(frozen=True)
class Case:
    id: str  # "area/what is special"
    tree: Tree

    @property
    def excused(self) -> bool:
        return self.id in EXCUSED


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case of every module here that has `TREES`, in the order of the modules' names."""
    return tuple(
        Case(f"{module.name}/{name}", tree)
        for module in iter_modules(__path__)
        if module.name != "build"
        for name, tree in import_module(f"{__name__}.{module.name}").TREES.items()
    )
