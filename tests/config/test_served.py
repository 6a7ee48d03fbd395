"""A model in onnxruntime that takes and gives what a client of its server sends and gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from modelwright.config.model_config import config_of, tensors_of
from modelwright.config.served import ServedView, check_served, control_values, served_view
from modelwright.errors import ConfigError
from modelwright.onnx.runtime import load_session, session_values
from tests.config.test_shapes import builder, declared

F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any] | None = None) -> ModelProto:
    values = [[helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph([helper.make_node(*node[:3], **dict(node[3:])) for node in nodes], "g", *values, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def view(folder: Path, proto: ModelProto, batch: int = 8, **fields: Any) -> ServedView:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return served_view(builder(batch, **fields), load_session(path))


ARGMAX = model(
    [("ArgMax", ["x"], ["label"], ("axis", 1), ("keepdims", 0))], [("x", F, ["b", 3])], [("label", I, ["b"])]
)
SCALARS = model(
    [("Mul", ["x", "rate"], ["y"]), ("ReduceSum", ["y"], ["sum"], ("keepdims", 0))],
    [("x", F, ["n"]), ("rate", F, [])],
    [("y", F, ["n"]), ("sum", F, [])],
)


def test_a_label_has_a_dimension_for_clients(tmp_path: Path) -> None:
    served = view(tmp_path, ARGMAX)
    assert served.scalars == {"label"}
    answer = served.run({"x": np.array([[1, 2, 3], [3, 2, 1]], np.float32)})
    assert answer["label"].tolist() == [[2], [0]]


def test_a_scalar_has_a_dimension_for_clients(tmp_path: Path) -> None:
    answer = view(tmp_path, SCALARS, 0).run({"x": np.ones(3, np.float32), "rate": np.array([2], np.float32)})
    assert {name: array.tolist() for name, array in answer.items()} == {"y": [2, 2, 2], "sum": [6]}


def test_a_reshape_stands_between_clients_and_the_model(tmp_path: Path) -> None:
    proto = model([("ReduceMax", ["x"], ["y"], ("axes", [3]), ("keepdims", 0))], [("x", F, ["b", 1, "h", 4])], [
        ("y", F, ["b", 1, "h"])
    ])  # fmt: skip
    serving = {
        "input": [{"name": "x", "dims": [-1, 4], "reshape": {"shape": [1, -1, 4]}}],
        "output": [{"name": "y", "dims": [-1, 1], "reshape": {"shape": [1, -1]}}],
    }
    served = view(tmp_path, proto, serving=serving)
    answer = served.run({"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4)})
    assert answer["y"].tolist() == [[[3], [7], [11]], [[15], [19], [23]]]


def test_a_string_ends_at_its_first_nul(tmp_path: Path) -> None:
    proto = model(
        [("Identity", ["x"], ["y"])], [("x", TensorProto.STRING, ["b", 2])], [("y", TensorProto.STRING, ["b", 2])]
    )
    answer = view(tmp_path, proto).run({"x": np.array([[b"a\0b", b"c"]], object)})
    assert answer["y"].tolist() == [[b"a", b"c"]]


def test_outputs_that_are_not_served_are_not_computed(tmp_path: Path) -> None:
    served = view(tmp_path, SCALARS, 0, outputs=declared(sum=[]))
    assert list(served.run({"x": np.ones(3, np.float32), "rate": np.ones(1, np.float32)})) == ["sum"]


def test_controls_have_the_values_of_a_sequence_of_one_request(tmp_path: Path) -> None:
    inputs = [("x", F, ["b", 1]), ("START", F, ["b", 1]), ("READY", TensorProto.BOOL, ["b", 1]), ("ID", I, ["b", 1])]
    nodes = [
        ("Cast", ["READY"], ["ready"], ("to", F)),
        ("Cast", ["ID"], ["id"], ("to", F)),
        ("Sum", ["x", "START", "ready", "id"], ["y"]),
    ]
    controls = [
        {"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "fp32_false_true": [0, 10]}]},
        {"name": "READY", "control": [{"kind": "CONTROL_SEQUENCE_READY", "bool_false_true": [False, True]}]},
        {"name": "ID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_INT64"}]},
    ]
    serving = {"sequence_batching": {"control_input": controls}}
    served = view(tmp_path, model(nodes, inputs, [("y", F, ["b", 1])]), serving=serving)
    assert {name: value.tolist() for name, value in control_values(served.config, 0).items()} == {
        "START": [10],
        "READY": [True],
        "ID": [1],
    }
    assert served.run({"x": np.zeros((2, 1), np.float32)})["y"].tolist() == [[12], [12]]


def test_a_session_infers_what_the_file_leaves_open(tmp_path: Path) -> None:
    """Also by folding constants: so the shapes are those of a session with the server's options."""
    proto = model(
        [("Add", ["a", "b"], ["shape"]), ("Reshape", ["x", "shape"], ["y"]), ("Relu", ["x"], ["z"])],
        [("x", F, ["n", 4])],
        [("y", F, ["n", "k", "l"]), ("z", F, None)],
        {"a": [-1, 1, 1], "b": [0, 1, 1]},
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert [value.dims for value in session_values(load_session(path))[1]] == [("n", 2, 2), ("n", 4)]
    assert [value.dims for value in session_values(load_session(path, graph_level=2))[1]] == [("n", "k", "l"), ("n", 4)]
    served = view(tmp_path, proto)
    assert [tensor.dims for tensor in served.tensors.outputs] == [(2, 2), (4,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"dims": [2]}, r"the model expects 2 dimensions \(shape \[-1,3\]\)", id="dims"),
        pytest.param({"data_type": "TYPE_FP16"}, "configuration expects datatype TYPE_FP16 for input 'x'", id="type"),
        pytest.param({"name": "z"}, "unexpected inference input 'z', allowed inputs are: x", id="name"),
        pytest.param({"optional": True}, "configuration expects 0 inputs, model provides 1", id="optional"),
    ],
)
def test_what_the_server_would_refuse_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    from google.protobuf import json_format

    served = view(tmp_path, ARGMAX)
    if "dims" in change:
        served.config.input[0].ClearField("dims")
    json_format.ParseDict(change, served.config.input[0])
    with pytest.raises(ConfigError, match=f"the server would refuse the model: .*{message}"):
        check_served(served.config, served.session)


def test_the_same_tensors_come_from_the_facts_of_the_step(tmp_path: Path) -> None:
    served = view(tmp_path, ARGMAX)
    assert config_of(builder(), served.tensors) == served.config
    assert tensors_of(builder(inputs=declared(x=[3]), outputs=declared(label=[]))).outputs[0].dims == (1,)
