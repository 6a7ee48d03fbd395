"""Where a node comes from, by the names of parameters and nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.steps.plan_layers import layers_before


def graph(tmp_path: Path, *nodes: Any, weights: tuple[str, ...] = ()) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    made = [numpy_helper.from_array(np.ones(2, dtype=np.float32), name) for name in weights]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(list(nodes), "g", values[:1], values[1:], made)), str(path))
    return path


@pytest.mark.parametrize(
    ("nodes", "weights", "expected"),
    [
        ([("Mul", ["x", "encoder.0.scale"], "y", "bad")], ["encoder.0.scale"], "in encoder.0"),
        (
            [("Mul", ["x", "encoder.0.scale"], "h", "a"), ("Relu", ["h"], "r", "b"), ("Neg", ["r"], "y", "bad")],
            ["encoder.0.scale"],
            "after encoder.0",
        ),
        ([("Relu", ["x"], "y", "bad")], [], ""),
        ([("Mul", ["x", "w"], "y", "bad")], ["w"], ""),
        ([("Relu", ["x"], "y", "/encoder/layer.0/Relu")], [], "in encoder.layer.0"),
    ],
    ids=["its own", "before it", "none", "no module in the name", "of the older exporter"],
)
def test_a_node_is_placed(tmp_path: Path, nodes: Any, weights: list[str], expected: str) -> None:
    made = [helper.make_node(op, inputs, [output], name=name) for op, inputs, output, name in nodes]
    path = graph(tmp_path, *made, weights=tuple(weights))
    assert layers_before(path, [nodes[-1][3], "not there"]) == [expected, ""]


def test_weights_that_lie_elsewhere_are_not_read(tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["x", "encoder.0.scale"], ["y"], name="bad")
    path = graph(tmp_path, node, weights=("encoder.0.scale",))
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert layers_before(path, ["bad"]) == ["in encoder.0"]
