"""Real models asked: onnxruntime by itself, and the server through NVIDIA's own clients."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.models import project as models

if TYPE_CHECKING:
    import numpy as np

    from modelwright.server.local import RunningServer

    Array = np.ndarray[Any, Any]
    Arrays = dict[str, Array]

PROTOCOLS = ("http", "grpc")


def largest_difference(root: Path, server: RunningServer, name: str) -> float:
    """How far the server is from onnxruntime on all samples, over both protocols; all that is not a float is equal.

    Raises AssertionError for other outputs, types, shapes or strings.
    """
    import onnxruntime

    model = root / "model_repository" / name
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    batched = "max_batch_size:" in (model / "config.pbtxt").read_text()
    worst = 0.0
    for sample in samples(root / "builders" / name):
        request = {key: array[None] for key, array in sample.items()} if batched else sample
        expected = plain_answer(session, request)
        for protocol in PROTOCOLS:
            answer = served_answer(server, protocol, name, request)
            assert answer.keys() == expected.keys()
            worst = max(worst, *(difference(answer[key], expected[key], f"{name}: {key}") for key in expected))
    return worst


def samples(builder: Path) -> list[Arrays]:
    """What data.py gives, one by one."""
    import numpy as np

    with _importable(builder):
        columns: Mapping[str, Any] = importlib.import_module("data").samples()
    count = len(next(iter(columns.values())))
    return [{name: np.asarray(column[index]) for name, column in columns.items()} for index in range(count)]


@contextmanager
def _importable(builder: Path) -> Iterator[None]:
    """The modules of a builder, and the packages, for the length of a `with` block."""
    path, folder = list(sys.path), Path.cwd()
    sys.path[:0] = [str(builder), str(models.PACKAGES)]
    os.chdir(builder)
    try:
        yield
    finally:
        os.chdir(folder)
        sys.path[:] = path
        for name in ("data", "convert"):
            sys.modules.pop(name, None)


def plain_answer(session: Any, request: Arrays) -> Arrays:
    """Of onnxruntime itself."""
    ranks = {node.name: len(node.shape) for node in session.get_inputs()}
    feed = {name: array.reshape(()) if ranks[name] == 0 else array for name, array in request.items()}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def served_answer(server: RunningServer, protocol: str, name: str, request: Arrays) -> Arrays:
    """Of the server, to NVIDIA's own client."""
    library = importlib.import_module(f"tritonclient.{protocol}")
    from tritonclient.utils import np_to_triton_dtype

    tensors = []
    for key, given in request.items():
        array = given.reshape(1) if given.ndim == 0 else given  # Triton has no scalars
        tensor = library.InferInput(key, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    client = library.InferenceServerClient(server.http if protocol == "http" else server.grpc)
    result = client.infer(name, tensors)
    response = result.get_response()
    names = [o.name for o in response.outputs] if protocol == "grpc" else [o["name"] for o in response["outputs"]]
    client.close()
    return {key: result.as_numpy(key) for key in names}


def difference(answer: Array, expected: Array, where: str) -> float:
    """The largest difference, in relation to the value where it is above 1. A row's one value is served as [1]."""
    import numpy as np

    assert answer.shape in (expected.shape, (*expected.shape, 1)), where
    answer = answer.reshape(expected.shape)
    if expected.dtype == object:
        assert [item.decode() for item in answer.ravel()] == expected.ravel().tolist(), where
        return 0.0
    assert answer.dtype == expected.dtype, where
    if expected.dtype.kind != "f":
        assert (answer == expected).all(), where
        return 0.0
    gap = np.abs(answer.astype(np.float64) - expected) / np.maximum(np.abs(expected), 1)
    return float(gap.max(initial=0))
