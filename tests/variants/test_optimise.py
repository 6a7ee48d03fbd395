"""Optimise: what is tried, what is dropped and why, what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import Sandbox

YAML = """
source: {{kind: onnx, path: model.onnx}}
samples: data:samples
serving: {{max_batch_size: 4{serving}}}
variants:
  - {{name: net_fast, steps: [{step}]}}
"""
DATA_PY = """
import numpy as np


def samples():
    return {"x": np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)}
"""


def net(path: Path, *, gemm: bool) -> None:
    """x (batch, 2, 8) → MatMul → Add of what a library can compute → Gelu → y; as `gemm` of (batch, 16), and Relu."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    width = 16 if gemm else 8
    weights = {"w": random.normal(size=(width, width)), "b": random.normal(size=width), "one": np.ones(width)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["b", "one"], ["bias"]),
        helper.make_node("Add", ["h", "bias"], ["g"]),
        helper.make_node("Relu" if gemm else "Gelu", ["g"], ["y"]),
    ]
    shape = ["batch", 16] if gemm else ["batch", 2, 8]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def write(sandbox: Sandbox, options: str = "", serving: str = "", *, gemm: bool = False) -> Path:
    step = f"{{optimise: {{{options}}}}}" if options else "optimise"
    yaml = YAML.format(step=step, serving=f", {serving}" if serving else "")
    folder = sandbox.write(
        "net", model_yaml=yaml, data_py=DATA_PY.replace("(8, 16)", "(8, 16)" if gemm else "(8, 2, 8)")
    )
    net(folder / "model.onnx", gemm=gemm)
    return folder


def facts_of(sandbox: Sandbox) -> dict[str, Any]:
    return dict(next(step for step in sandbox.manifest("net_fast").lineage if step.step == "optimise").facts)


def tried(sandbox: Sandbox) -> dict[str, str]:
    return {item["candidate"]: item["result"] for item in facts_of(sandbox)["tried"]}


def operators(sandbox: Sandbox) -> list[str]:
    import onnx

    model = onnx.load(sandbox.root / "model_repository/net_fast/1/model.onnx")
    return [node.op_type for node in model.graph.node]


def test_the_plain_graph_stays_where_no_candidate_is_clearly_faster(sandbox: Sandbox) -> None:
    write(sandbox, "candidates: [onnxslim, transformers], margin: 0.99")
    assert sandbox.build()["net_fast"].status == "new"
    facts = facts_of(sandbox)
    assert facts["kept"] == "plain"
    assert tried(sandbox)["onnxslim"].startswith("dropped: no clear gain, where two runs of the plain graph differ by")
    assert set(facts["tried"][-1]["ratios"]) == {"1", "4"}
    assert "the architecture is not known" in tried(sandbox)["transformers"]
    plain = sandbox.root / "model_repository/net/1/model.onnx"
    assert (sandbox.root / "model_repository/net_fast/1/model.onnx").read_bytes() == plain.read_bytes()


def test_a_chosen_candidate_is_kept_and_gives_the_same_bytes_each_time(sandbox: Sandbox) -> None:
    write(sandbox, "choose: onnxslim")
    assert sandbox.build()["net_fast"].status == "new"
    assert facts_of(sandbox)["kept"] == "onnxslim"
    assert operators(sandbox).count("Add") == 1  # the other one was of constants
    digest = sandbox.manifest("net_fast").version_digest
    for path in (sandbox.root / ".modelwright/store").rglob("artifact.json"):
        path.unlink()
    sandbox.build()
    assert sandbox.manifest("net_fast").version_digest == digest


def test_onnxruntimes_own_operators_are_those_that_it_has_everywhere(sandbox: Sandbox) -> None:
    import onnx

    write(sandbox, "choose: onnxruntime")
    assert sandbox.build()["net_fast"].status == "new"
    model = onnx.load(sandbox.root / "model_repository/net_fast/1/model.onnx")
    assert [(node.domain, node.op_type) for node in model.graph.node] == [("", "MatMul"), ("com.microsoft", "BiasGelu")]
    assert {item.domain for item in model.opset_import} == {"", "com.microsoft"}


def test_an_operator_that_gpus_lack_is_not_published(sandbox: Sandbox) -> None:
    write(sandbox, "choose: onnxruntime", gemm=True)
    error = str(sandbox.build()["net_fast"].error)
    assert "net_fast: optimise: choose: onnxruntime: dropped: FusedGemm is not in onnxruntime's CUDA provider" in error


@pytest.mark.parametrize(
    ("options", "serving"),
    [
        ("choose: onnxruntime, operators: onnx", ""),
        (
            "choose: onnxruntime",
            "optimization: {execution_accelerators: {gpu_execution_accelerator: [{name: tensorrt}]}}",
        ),
    ],
    ids=["asked for", "served through TensorRT"],
)
def test_tensorrt_gets_standard_operators_only(sandbox: Sandbox, options: str, serving: str) -> None:
    write(sandbox, options, serving)
    assert sandbox.build()["net_fast"].status == "new"
    assert operators(sandbox) == ["MatMul", "Add", "Gelu"]


def test_weights_outside_the_file_are_read(sandbox: Sandbox) -> None:
    import onnx

    file = write(sandbox, "choose: onnxruntime") / "model.onnx"
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="model.data", size_threshold=0)
    outcome = sandbox.build()["net_fast"]
    assert outcome.status == "new", outcome.error
    assert operators(sandbox) == ["MatMul", "BiasGelu"]
    assert not (sandbox.root / "model_repository/net_fast/1/model.data").exists()


def test_a_graph_that_keeps_its_weights_outside_stays_with_them(sandbox: Sandbox) -> None:
    import onnx

    file = write(sandbox, "candidates: [transformers]") / "model.onnx"
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="model.data", size_threshold=0)
    assert sandbox.build()["net_fast"].status == "new"
    assert facts_of(sandbox)["kept"] == "plain"
    assert (sandbox.root / "model_repository/net_fast/1/model.data").is_file()


def test_an_unknown_architecture_is_named_with_those_that_are_known(sandbox: Sandbox) -> None:
    write(sandbox, "architecture: berd")
    error = sandbox.error()
    assert "optimise.architecture" in error
    assert "bert" in error


ATTENTION_PY = """
import torch


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
        self.norm = torch.nn.LayerNorm(8)

    def forward(self, x):
        q, k, v = (part(x).view(x.shape[0], x.shape[1], -1, 4).transpose(1, 2) for part in self.parts)
        weights = torch.softmax(q @ k.transpose(2, 3) * 0.5, dim=-1)
        found = (weights @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], -1)
        return self.norm(found + x)


def train():
    torch.manual_seed(0)
    return Attention().eval()
"""
ATTENTION_YAML = """
source: {kind: torch, entry: train:train}
inputs: [{name: x, dtype: FP32, shape: [sequence, 8]}]
outputs: [{name: y, dtype: FP32, shape: [sequence, 8]}]
samples: data:samples
serving: {max_batch_size: 4}
variants:
  - {name: attention_fused, steps: [{optimise: {choose: onnxscript}}]}
"""
ATTENTION_DATA_PY = """
import numpy as np


def samples():
    random = np.random.default_rng(0)
    return {"x": [random.normal(size=(length, 8)).astype(np.float32) for length in (3, 3, 5, 7)]}
"""


@pytest.mark.torch
def test_attention_of_torchs_exporter_is_fused(sandbox: Sandbox) -> None:
    import onnx

    sandbox.write("attention", model_yaml=ATTENTION_YAML, train_py=ATTENTION_PY, data_py=ATTENTION_DATA_PY)
    outcome = sandbox.build()["attention_fused"]
    assert outcome.status == "new", outcome.error
    model = onnx.load(sandbox.root / "model_repository/attention_fused/1/model.onnx")
    fused = {node.op_type: node for node in model.graph.node if node.domain == "com.microsoft"}
    assert set(fused) == {"MultiHeadAttention", "SkipLayerNormalization"}
    assert {item.name: item.i for item in fused["MultiHeadAttention"].attribute}["num_heads"] == 2
