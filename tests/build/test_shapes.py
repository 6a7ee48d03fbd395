"""Builders whose tensors look otherwise to clients than to the model: scalars, a value a row, subsets, controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, save

from modelwright.config.render import parse
from modelwright.operations.infer import infer
from modelwright.operations.replay import replay, serving_all
from modelwright.repository.versions import published
from modelwright.verification.golden import load_golden
from tests.conftest import Sandbox
from tests.server.models import graph, identity, node

F, I = "TYPE_FP32", "TYPE_INT64"  # noqa: E741
X = ("x", F, ["b", 3])
ROWS = "'x': R.random((4, 3)).astype(np.float32)"
YAML = "source: {kind: onnx, path: model.onnx}\nsamples: data:samples\n"
START = """
serving:
  max_batch_size: 8
  sequence_batching:
    control_input: [{name: START, control: [{kind: CONTROL_SEQUENCE_START, fp32_false_true: [0, 1]}]}]
  model_warmup: [{name: first}]
"""
BATCH = "serving: {max_batch_size: 8, model_warmup: [{name: first}]}"
ONE = "serving: {max_batch_size: 0, model_warmup: [{name: first}]}"
RESHAPED = """
serving:
  max_batch_size: 8
  input: [{name: x, dims: [12], reshape: {shape: [1, 3, 4]}}]
  output: [{name: y, dims: [6, 2], reshape: {shape: [1, 3, 4]}}]
  model_warmup: [{name: first}]
"""
ONE_VALUE = numpy_helper.from_array(np.array([1]), "one")

LABEL = graph([node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)], [X], [("label", I, ["b"])])
# name → (graph, what samples() returns, the rest of model.yaml)
MODELS: dict[str, tuple[ModelProto, str, str]] = {
    "label": (LABEL, ROWS, BATCH),
    "label_declared": (LABEL, ROWS, f"outputs: [{{name: label, dtype: INT64, shape: [1]}}]\n{BATCH}"),
    "length": (
        graph(
            [
                node("Unsqueeze", ["length", "one"], ["l"]),
                node("Cast", ["l"], ["f"], to=TensorProto.FLOAT),
                node("Mul", ["x", "f"], ["y"]),
            ],
            [X, ("length", I, ["b"])],
            [("y", F, ["b", 3])],
            [ONE_VALUE],
        ),
        f"{ROWS}, 'length': np.array([1, 2, 3, 2])",
        BATCH,
    ),
    "rate": (
        graph(
            [
                node("Cast", ["rate"], ["f"], to=TensorProto.FLOAT),
                node("Mul", ["x", "f"], ["y"]),
                node("ReduceSum", ["y"], ["sum"], keepdims=0),
            ],
            [("x", F, ["n"]), ("rate", I, [])],
            [("y", F, ["n"]), ("sum", F, [])],
        ),
        "'x': R.random((2, 4)).astype(np.float32), 'rate': np.array([16000, 8000])",
        ONE,
    ),
    "reshaped": (identity(dims=["b", 1, 3, 4]), "'x': R.random((3, 12)).astype(np.float32)", RESHAPED),
    "one_output": (
        graph([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["debug"])], [X], [("y", F, ["b", 3]), ("debug", F, ["b", 3])]),
        ROWS,
        f"outputs: [{{name: y, dtype: FP32, shape: [3]}}]\n{BATCH}",
    ),
    "loose": (graph([node("Relu", ["x"], ["y"])], [X], [("y", F, ["b", "unknown"])]), ROWS, BATCH),
    "started": (
        graph([node("Add", ["x", "START"], ["y"])], [("x", F, ["b", 1]), ("START", F, ["b", 1])], [("y", F, ["b", 1])]),
        "'x': R.random((4, 1)).astype(np.float32)",
        START,
    ),
}  # fmt: skip


def write(sandbox: Sandbox, name: str, proto: ModelProto, samples: str, yaml: str) -> None:
    data = f"import numpy as np\n\nR = np.random.default_rng(0)\n\n\ndef samples():\n    return {{{samples}}}\n"
    save(proto, sandbox.write(name, model_yaml=YAML + yaml, data_py=data) / "model.onnx")


def tensors(sandbox: Sandbox, model: str) -> dict[str, tuple[list[int], list[int] | None]]:
    """{tensor: (dims, reshape or None)} of a published config."""
    config = parse(sandbox.config(model), "config.pbtxt")
    return {
        tensor.name: (list(tensor.dims), list(tensor.reshape.shape) if tensor.HasField("reshape") else None)
        for tensor in (*config.input, *config.output)
    }


@pytest.mark.server
def test_the_server_takes_what_is_derived(sandbox: Sandbox) -> None:
    """Built, warmed up, and the same answers from the server over both protocols."""
    for name, (proto, samples, yaml) in MODELS.items():
        write(sandbox, name, proto, samples, yaml)
    assert {name: outcome.status for name, outcome in sandbox.build().items()} == dict.fromkeys(MODELS, "new")
    versions = published(sandbox.repository)
    log = sandbox.root / "server.log"
    with serving_all(sandbox.project, versions, log, lambda text: None) as served:
        results = replay(sandbox.repository, versions, served.urls, served.refused)
        assert sorted((row.model, row.verdict) for row in results) == sorted(2 * [(name, "ok") for name in MODELS])
        assert asked(sandbox, served.http, "length", x=[[1, 2, 3], [4, 5, 6]], length=[2, 3]) == {
            "y": [[2, 4, 6], [12, 15, 18]]
        }
        assert asked(sandbox, served.http, "rate", x=[1, 2], rate=3) == {"y": [3, 6], "sum": [9]}
        assert asked(sandbox, served.grpc, "started", x=[[5]]) == {"y": [[6]]}
    assert {name: tensors(sandbox, name) for name in MODELS} == {
        "label": {"x": ([3], None), "label": ([1], [])},
        "label_declared": {"x": ([3], None), "label": ([1], [])},
        "length": {"x": ([3], None), "length": ([1], []), "y": ([3], None)},
        "rate": {"x": ([-1], None), "rate": ([1], None), "y": ([-1], None), "sum": ([1], None)},
        "reshaped": {"x": ([12], [1, 3, 4]), "y": ([6, 2], [1, 3, 4])},
        "one_output": {"x": ([3], None), "y": ([3], None)},
        "loose": {"x": ([3], None), "y": ([3], None)},
        "started": {"x": ([1], None), "y": ([1], None)},
    }
    assert golden_shapes(sandbox, "label") == {"x": (3,), "label": ()}
    assert golden_shapes(sandbox, "label_declared") == {"x": (3,), "label": (1,)}
    assert golden_shapes(sandbox, "rate") == {"x": (4,), "rate": (), "y": (4,), "sum": ()}
    assert golden_shapes(sandbox, "reshaped") == {"x": (12,), "y": (6, 2)}


def asked(sandbox: Sandbox, url: str, model: str, **inputs: Any) -> dict[str, Any]:
    """What `modelwright infer` answers."""
    answer = infer(sandbox.project, model, url=url, inputs=inputs, say=lambda text: None)
    return {name: array.tolist() for name, array in answer.outputs.items()}


def golden_shapes(sandbox: Sandbox, model: str) -> dict[str, tuple[int, ...]]:
    inputs, outputs = load_golden(sandbox.root / "model_repository" / model / "1" / "golden.npz")
    return {name: array.shape for name, array in {**inputs[0], **outputs[0]}.items()}


def zipmap() -> ModelProto:
    values = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made = graph([node("ZipMap", ["x"], ["p"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])], [X], [])
    made.graph.output.append(helper.make_value_info("p", helper.make_sequence_type_proto(values)))
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return made


@pytest.mark.parametrize(
    ("proto", "samples", "yaml", "message"),
    [
        pytest.param(zipmap(), ROWS, BATCH, "zipmap=False", id="zipmap"),
        pytest.param(
            graph([node("Compress", ["x", "k"], ["y"], axis=0)], [X], [("y", F, ["found", 3])],
                  [numpy_helper.from_array(np.array([True]), "k")]),
            ROWS, BATCH, "output 'y' has 'found' rows, and a request 'b'", id="rows of another name",
        ),
        pytest.param(
            identity(dims=["b", 1, 3, 4]), "'x': R.random((3, 12)).astype(np.float32)",
            RESHAPED.replace("[1, 3, 4]", "[3, 4]"), "reshape to [3, 4], and the model's shape is [1, 3, 4]",
            id="a reshape to what the model has not",
        ),
        pytest.param(LABEL, ROWS.replace("x", "y"), BATCH, "the samples have 'y': no such input", id="samples of other names"),
        pytest.param(
            LABEL, ROWS.replace("float32", "float64"), BATCH, "the samples' 'x' is float64, the model takes FP32",
            id="samples of another type",
        ),
        pytest.param(
            LABEL, ROWS.replace("(4, 3)", "(4, 2)"), BATCH, "a sample of 'x' has shape [2], the model takes [3]",
            id="samples of another shape",
        ),
        pytest.param(
            graph([node("Relu", ["x"], ["y"])], [("x", F, ["b", "n"])], [("y", F, ["b", "n"])]), ROWS,
            f"outputs: [{{name: y, dtype: FP32, shape: [4]}}]\n{BATCH}", "'y' of sample 0 has shape [3], expected [4]",
            id="answers of another size than declared",
        ),
        pytest.param(
            MODELS["started"][0], MODELS["started"][1], START.replace("fp32_false_true", "int32_false_true"),
            "sequence control 'START', the model expects data-type TYPE_FP32", id="a control of another type",
        ),
        pytest.param(
            MODELS["started"][0], MODELS["started"][1], START.replace("name: START", "name: BEGIN"),
            "builders/m/model.yaml: the server would refuse the model: configuration specified sequence control 'BEGIN'",
            id="a control that the model has not",
        ),
    ],
)  # fmt: skip
def test_what_the_server_would_refuse_is_not_published(
    sandbox: Sandbox, proto: Any, samples: str, yaml: str, message: str
) -> None:
    write(sandbox, "m", proto, samples, yaml)
    outcome = sandbox.build()["m"]
    assert outcome.status == "failed"
    assert message in " ".join(str(outcome.error).split())


def test_an_output_that_is_not_served_may_have_other_rows(sandbox: Sandbox) -> None:
    proto = graph(
        [node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["z"])], [X], [("y", F, ["b", 3]), ("z", F, ["found", 3])]
    )
    write(sandbox, "m", proto, ROWS, f"outputs: [{{name: y, dtype: FP32, shape: [3]}}]\n{BATCH}")
    assert sandbox.build()["m"].error is None


def test_an_output_may_be_declared_narrower_than_the_model_says(sandbox: Sandbox) -> None:
    """The answers are held to it. The config says what the model says, since the server takes nothing else."""
    proto = graph([node("Relu", ["x"], ["y"])], [("x", F, ["b", "n"])], [("y", F, ["b", "n"])])
    write(sandbox, "m", proto, ROWS, f"outputs: [{{name: y, dtype: FP32, shape: [3]}}]\n{BATCH}")
    assert sandbox.build()["m"].error is None
    assert tensors(sandbox, "m") == {"x": ([-1], None), "y": ([-1], None)}


def test_a_lower_level_of_optimisation_infers_less(sandbox: Sandbox) -> None:
    """Folding constants makes sizes known. The config follows the session that the server will have."""
    weights = [numpy_helper.from_array(np.array(dims), name) for name, dims in {"a": [-1, 1], "c": [0, 2]}.items()]
    proto = graph(
        [node("Add", ["a", "c"], ["s"]), node("Reshape", ["x", "s"], ["y"])], [X], [("y", F, ["b", "k"])], weights
    )
    write(sandbox, "m", proto, ROWS, BATCH)
    assert sandbox.build()["m"].error is None
    assert tensors(sandbox, "m")["y"] == ([3], None)
    write(sandbox, "m", proto, ROWS, BATCH.replace("{max", "{optimization: {graph: {level: 2}}, max"))
    assert sandbox.build()["m"].error is None
    assert tensors(sandbox, "m")["y"] == ([-1], None)


TRAIN = """
import numpy as np
import torch


class Pick(torch.nn.Module):
    def forward(self, x, length):
        kept = torch.arange(x.shape[1]) < length[:, None]
        return x.masked_fill(~kept, -1).argmax(1)


class Scale(torch.nn.Module):
    def forward(self, x, factor):
        return x * factor, x.sum()


def pick():
    return Pick().eval()


def scale():
    return Scale().eval()


def samples():
    return {"x": np.random.default_rng(1).random((5, 4), np.float32), "length": np.array([1, 2, 3, 4, 4])}


def scaled():
    return {"x": np.random.default_rng(1).random((3, 4), np.float32), "factor": np.array([1, 2, 3], np.float32)}
"""


@pytest.mark.torch
def test_scalars_of_a_torch_module(sandbox: Sandbox) -> None:
    sandbox.write(
        "pick",
        train_py=TRAIN,
        model_yaml="""
        source: {kind: torch, entry: train:pick}
        inputs: [{name: x, dtype: FP32, shape: [words]}, {name: length, dtype: INT64, shape: []}]
        outputs: [{name: best, dtype: INT64, shape: []}]
        samples: train:samples
        serving: {max_batch_size: 8}
        """,
    )
    sandbox.write("scale", train_py=TRAIN, model_yaml="""
        source: {kind: torch, entry: train:scale}
        inputs: [{name: x, dtype: FP32, shape: [n]}, {name: factor, dtype: FP32, shape: []}]
        outputs: [{name: y, dtype: FP32, shape: [n]}, {name: total, dtype: FP32, shape: []}]
        samples: train:scaled
        """)  # fmt: skip
    outcomes = sandbox.build()
    assert {name: outcome.error for name, outcome in outcomes.items()} == {"pick": None, "scale": None}
    assert tensors(sandbox, "pick") == {"x": ([-1], None), "length": ([1], []), "best": ([1], [])}
    assert tensors(sandbox, "scale") == {
        "x": ([-1], None), "factor": ([1], None), "y": ([-1], None), "total": ([1], None)
    }  # fmt: skip
    assert golden_shapes(sandbox, "pick") == {"x": (4,), "length": (), "best": ()}
