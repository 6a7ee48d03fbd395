"""Models with bfloat16 tensors, which numpy does not have: built, warmed up, replayed, asked and adopted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.facts.compared_with import ComparedWith
from modelwright.triton.tensors import load_tensors
from tests.conftest import Sandbox

YAML = """
    source: {kind: onnx, path: model.onnx}
    samples: data:samples
    reference: data:reference
    evaluate: data:evaluate
    serving:
      max_batch_size: 8
      dynamic_batching: {}
      model_warmup: [{name: golden}, {name: random, inputs: {x: {random_data: true}}}]
"""
DATA = """
    import numpy as np


    def samples():
        return {"x": np.array([[1.0, -2.0], [3.1415927, 0.5], [0, 1e30]], np.float32)}


    def reference(samples):
        return {"y": np.maximum(samples["x"].astype(np.float32), 0)}


    def evaluate(infer):
        return {"largest": float(infer({"x": np.full((2, 2), 7, np.float32)})["y"].max())}
"""


def relu(path: Path, shape: tuple[str | int, ...] = ("batch", 2)) -> None:
    """y = max(x, 0), both bfloat16."""
    values = [helper.make_tensor_value_info(name, TensorProto.BFLOAT16, shape) for name in ("x", "y")]
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["float"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["y"], to=TensorProto.BFLOAT16),
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def halves(sandbox: Sandbox, yaml: str = YAML) -> None:
    relu(sandbox.write("half", model_yaml=yaml, data_py=DATA) / "model.onnx")


def test_samples_and_references_in_float32_are_rounded(sandbox: Sandbox) -> None:
    halves(sandbox)
    result = sandbox.cli("build")
    assert result.exit_code == 0, result.output
    golden = load_tensors(sandbox.repository.folder("half", 1) / "golden.npz")
    assert {name: array.dtype.name for name, array in golden.items()} == {"input/x": "bfloat16", "output/y": "bfloat16"}
    assert golden["input/x"][1].tolist() == [3.140625, 0.5]
    assert sandbox.manifest("half").verification.metrics == {"largest": 7.0}
    config = sandbox.config("half")
    assert config.count("TYPE_BF16") == 4  # input, output, two warm-ups
    warmup = sandbox.root / "model_repository/half/warmup/golden-x"
    assert np.frombuffer(warmup.read_bytes(), "<u2").tolist() == [0x3F80, 0xC000]  # 1.0, -2.0


def test_a_declared_type_is_bf16(sandbox: Sandbox) -> None:
    halves(
        sandbox,
        YAML + "    inputs: [{name: x, dtype: BF16, shape: [2]}]\n    outputs: [{name: y, dtype: FP32, shape: [2]}]\n",
    )
    assert "outputs: 'y' is BF16 in the model, FP32 in model.yaml" in sandbox.error()


def test_an_earlier_release_does_not_serve_it(sandbox: Sandbox) -> None:
    (sandbox.root / "modelwright.toml").write_text('triton = "26.02"\n')
    halves(sandbox)
    assert (
        "'x' is BFLOAT16, which Triton 26.02 does not serve from an ONNX model: the first release that does is 26.03"
        in (sandbox.error())
    )


@pytest.mark.server
def test_the_server_answers_as_verification_did(sandbox: Sandbox) -> None:
    """Replayed over both protocols, asked, and adopted with its golden samples."""
    halves(sandbox)
    built = sandbox.cli("build", "--replay")
    assert "HTTP ok, gRPC ok" in built.output, built.output
    answer = json.loads(sandbox.cli("infer", "half", "--input", "x=[[3.1415927, -1]]", "--json").stdout)
    assert answer["outputs"]["y"] == {"dtype": "bfloat16", "shape": [1, 2], "values": [3.140625, 0.0], "more": False}

    foreign = sandbox.root / "foreign"
    shutil.move(sandbox.root / "model_repository", foreign)
    shutil.rmtree(sandbox.root / "builders/half")
    adopted = sandbox.cli("adopt", str(foreign))
    assert adopted.exit_code == 0, adopted.output
    assert sandbox.build()["half"].status == "new"
    assert sandbox.manifest("half").verification.compared_with is ComparedWith.GOLDEN_SAMPLES
