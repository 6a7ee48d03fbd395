"""Builders whose models answer wrongly in a batch, at another size, or beside other requests: see the cases' reports."""

from __future__ import annotations

import re
import textwrap

import numpy as np
import pytest
from onnx import numpy_helper, save

from modelwright.verification.golden import load_golden
from tests.conftest import Sandbox
from tests.server.models import graph, node

ONE_FILE = """
source: {kind: onnx, path: model.onnx}
samples: data:samples
serving: {max_batch_size: BATCH}
"""


def onnx_model(sandbox: Sandbox, name: str, proto: object, samples: str, batch: int, more: str = "") -> None:
    data = f"import numpy as np\n\nR = np.random.default_rng(0)\n\n\ndef samples():\n    return {samples}\n"
    folder = sandbox.write(name, model_yaml=ONE_FILE.replace("BATCH", str(batch)) + more, data_py=data)
    save(proto, folder / "model.onnx")


def relu(dims: list[object]) -> object:
    return graph([node("Relu", ["x"], ["y"])], [("x", "TYPE_FP32", dims)], [("y", "TYPE_FP32", dims)])


def golden_shapes(sandbox: Sandbox, model: str) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of the first input and the first output, sample by sample."""
    inputs, outputs = load_golden(sandbox.root / "model_repository" / model / "1" / "golden.npz")
    return [next(iter(row.values())).shape for row in inputs], [next(iter(row.values())).shape for row in outputs]


def test_samples_of_two_sizes(sandbox: Sandbox) -> None:
    samples = "{'x': [np.zeros((3, 8, 8), np.float32), np.ones((3, 16, 8), np.float32)]}"
    onnx_model(sandbox, "sized", relu(["b", 3, "h", "w"]), samples, 8)
    assert sandbox.build()["sized"].status == "new"
    assert golden_shapes(sandbox, "sized") == ([(3, 8, 8), (3, 16, 8)],) * 2


def test_answers_whose_size_depends_on_the_data(sandbox: Sandbox) -> None:
    found = graph([node("NonZero", ["x"], ["where"])], [("x", "TYPE_FP32", ["n"])], [("where", "TYPE_INT64", [1, "k"])])
    onnx_model(sandbox, "found", found, "{'x': np.array([[0, 1, 1, 0], [1, 1, 1, 0]], np.float32)}", 0)
    assert sandbox.build()["found"].status == "new"
    assert golden_shapes(sandbox, "found") == ([(4,), (4,)], [(1, 2), (1, 3)])


def test_evaluate_and_reference_get_lists_where_sizes_differ(sandbox: Sandbox) -> None:
    samples = "{'x': [np.ones((2, 4), np.float32), -np.ones((3, 4), np.float32)]}"
    onnx_model(
        sandbox, "sized", relu(["b", "t", 4]), samples, 8, "reference: data:reference\nevaluate: data:evaluate\n"
    )
    with (sandbox.root / "builders" / "sized" / "data.py").open("a") as file:
        file.write(
            textwrap.dedent("""

            def reference(inputs):
                return {"y": [np.maximum(x, 0) for x in inputs["x"]]}


            def evaluate(infer):
                answers = infer(samples())["y"]
                return {"accuracy": float([a.shape for a in answers] == [(2, 4), (3, 4)])}
            """)
        )
    outcome = sandbox.build()["sized"]
    assert outcome.error is None
    assert outcome.metrics == {"accuracy": 1.0}


def test_a_sum_over_the_batch_that_one_sample_does_not_show(sandbox: Sandbox) -> None:
    axes = numpy_helper.from_array(np.array([0]), "axes")
    tensors = [("x", "TYPE_FP32", ["b", 3])], [("y", "TYPE_FP32", ["b", 3])]
    summed = graph([node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)], *tensors, [axes])
    scaled = graph(
        [node("ReduceMax", ["x"], ["top"], axes=[0]), node("Div", ["x", "top"], ["y"])],
        *tensors,
    )
    onnx_model(sandbox, "summed", summed, "{'x': R.random((1, 3)).astype(np.float32)}", 8)
    onnx_model(sandbox, "scaled", scaled, "{'x': R.random((1, 3)).astype(np.float32)}", 8)
    outcomes = sandbox.build()
    assert "'y' has the fixed shape [1, 3]" in str(outcomes["summed"].error)
    assert "beside another one: 'y' differs by" in str(outcomes["scaled"].error)
    assert "samples carry the batch dimension" in str(outcomes["scaled"].error)


def test_answers_that_change_are_not_called_another_source(sandbox: Sandbox) -> None:
    noisy = graph(
        [node("RandomNormalLike", ["x"], ["n"]), node("Add", ["x", "n"], ["y"])],
        [("x", "TYPE_FP32", ["b", 3])],
        [("y", "TYPE_FP32", ["b", 3])],
    )
    onnx_model(sandbox, "noisy", noisy, "{'x': R.random((3, 3)).astype(np.float32)}", 8)
    error = str(sandbox.build()["noisy"].error)
    assert "from the first answer" in error
    assert "dropout" in error


SCALAR_REFERENCE = """

def reference(inputs):
    return {"label": inputs["x"].argmax(1)RESULT}
"""


@pytest.mark.parametrize(
    ("result", "message"),
    [
        pytest.param("", "", id="as the model"),
        pytest.param("[:, None]", "", id="a column"),
        pytest.param("[:3]", "reference data:reference: 3 answers to 4 samples", id="too few"),
        pytest.param("[:, None, None]", "a reference returns (N, *shape)", id="of another rank"),
    ],
)
def test_a_reference_of_scalars(sandbox: Sandbox, result: str, message: str) -> None:
    label = graph(
        [node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        [("x", "TYPE_FP32", ["b", 3])],
        [("label", "TYPE_INT64", ["b"])],
    )
    onnx_model(sandbox, "label", label, "{'x': R.random((4, 3)).astype(np.float32)}", 8, "reference: data:reference\n")
    with (sandbox.root / "builders" / "label" / "data.py").open("a") as file:
        file.write(SCALAR_REFERENCE.replace("RESULT", result))
    outcome = sandbox.build()["label"]
    assert (message in str(outcome.error)) if message else outcome.error is None


def test_a_size_that_could_not_be_tested_is_said(sandbox: Sandbox) -> None:
    shape = numpy_helper.from_array(np.array([-1, 2, 2]), "shape")
    fixed = graph(
        [node("Reshape", ["x", "shape"], ["y"])],
        [("x", "TYPE_FP32", ["n"])],
        [("y", "TYPE_FP32", ["m", 2, 2])],
        [shape],
    )
    onnx_model(sandbox, "fixed", fixed, "{'x': R.random((2, 4)).astype(np.float32)}", 0)
    assert sandbox.build()["fixed"].error is None  # eight and two elements: the first of them fits


FIRST_ONLY = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        x = pb_utils.get_input_tensor_by_name(requests[0], "x").as_numpy()
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x + 1)])]
"""
RAISES = """
import numpy as np
import triton_python_backend_utils as pb_utils


def answer(request):
    x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
    if np.isnan(x).any():
        raise ValueError("not a number")
    return pb_utils.InferenceResponse([pb_utils.Tensor("y", x + 1)])


class TritonPythonModel:
    def execute(self, requests):
        return [answer(request) for request in requests]
"""
PYTHON = """
source: {kind: python}
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [2]}]
samples: data:samples
reference: data:reference
serving: {max_batch_size: 8, dynamic_batching: {}}
"""


@pytest.mark.server
def test_python_models_are_verified_with_the_batching_that_serving_asks_for(sandbox: Sandbox) -> None:
    sandbox.python_builder("first_only", PYTHON, FIRST_ONLY)
    sandbox.python_builder("raises", PYTHON, RAISES)
    sandbox.python_builder("good", PYTHON)

    sandbox.python_builder(
        "neighbours",
        PYTHON.replace("reference: data:reference\n", "").replace(", dynamic_batching: {}", ""),
        FIRST_ONLY.replace("x + 1", "(x - x.mean(axis=0))"),
    )
    sandbox.python_builder("not_batched", PYTHON.replace(", dynamic_batching: {}", ""), FIRST_ONLY)
    outcomes = sandbox.build()
    first, raises = str(outcomes["first_only"].error), str(outcomes["raises"].error)
    assert "at the same time gets no answer" in first
    assert "return one response for each" in first
    assert "beside a bad request gets no answer" in raises
    assert "TritonError" in raises
    assert re.search(r"sample \d as row \d of a batch", str(outcomes["neighbours"].error))
    assert outcomes["good"].status == outcomes["not_batched"].status == "new"
    assert not sandbox.manifest("good").verification.notes
