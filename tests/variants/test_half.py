"""FP16 and BF16: which nodes compute in half precision, and what keeps a model accurate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.onnx.canonical import canonicalise, save_canonical
from modelwright.onnx.precision import FP16, lower
from modelwright.onnx.values import value_types
from tests.conftest import Sandbox

YAML = """
source: {{kind: onnx, path: model.onnx}}
samples: data:samples
serving: {{max_batch_size: 8{serving}}}
variants:
  - {{name: net_{name}, steps: [{step}]{more}}}
"""
DATA_PY = """
import numpy as np


def samples():
    return {{"x": (np.random.default_rng(0).normal(size=(16, 8)) * {scale}).astype(np.float32)}}
"""


def net(path: Path, *, opset: int = 22, scale: float = 1.0, tail: str = "Softmax") -> None:
    """x (batch, 8) → MatMul → Relu → MatMul → Softmax → y."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    weights = [random.normal(size=(8, 8)).astype(np.float32) / 3 * scale for _ in range(2)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h0"], name="first"),
        helper.make_node("Relu", ["h0"], ["h1"], name="relu"),
        helper.make_node("MatMul", ["h1", "w1"], ["h2"], name="second"),
        helper.make_node(tail, ["h2"], ["y"], name="tail"),
    ]
    shape = ["batch", 8]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, f"w{index}") for index, array in enumerate(weights)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)


def write(sandbox: Sandbox, step: str = "fp16", serving: str = "", more: str = "", scale: float = 1.0) -> Path:
    name = step.strip("{").partition(":")[0].strip()
    yaml = YAML.format(
        name=name, step=step, serving=f", {serving}" if serving else "", more=f", {more}" if more else ""
    )
    folder = sandbox.write("net", model_yaml=yaml, data_py=DATA_PY.format(scale=scale))
    net(folder / "model.onnx")
    return folder


def graph_of(sandbox: Sandbox, model: str):  # type: ignore[no-untyped-def]
    import onnx

    return onnx.load(sandbox.root / f"model_repository/{model}/1/model.onnx")


def facts_of(sandbox: Sandbox) -> dict[str, Any]:
    """What the step fp16 of net_fp16 learnt."""
    return dict(next(step for step in sandbox.manifest("net_fp16").lineage if step.step == "fp16").facts)


GPU = "instance_group: [{kind: KIND_GPU}]"


def test_products_compute_in_fp16_and_softmax_in_float32(sandbox: Sandbox) -> None:
    from onnx import TensorProto

    write(sandbox)
    assert sandbox.build()["net_fp16"].status == "new"
    graph = graph_of(sandbox, "net_fp16").graph
    assert [node.op_type for node in graph.node] == ["Cast", "MatMul", "Relu", "MatMul", "Cast", "Softmax"]
    assert {tensor.name: tensor.data_type for tensor in graph.initializer} == {
        "w0.fp16": TensorProto.FLOAT16,
        "w1.fp16": TensorProto.FLOAT16,
    }
    assert graph.input[0].type.tensor_type.elem_type == graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    manifest = sandbox.manifest("net_fp16")
    assert manifest.verification.precision == "fp16"
    assert 0 < manifest.verification.max_abs_error["y"] < 1e-2
    facts = facts_of(sandbox)
    assert facts["nodes"] == 3
    assert facts["kept"] == {"tail": "Softmax is sensitive to rounding"}
    assert facts["tried"] == 1


def test_bf16_is_verified_by_a_graph_that_rounds_as_it_does(sandbox: Sandbox) -> None:
    write(sandbox, "bf16", GPU)
    assert sandbox.build()["net_bf16"].status == "new"
    types = {node.attribute[0].i for node in graph_of(sandbox, "net_bf16").graph.node if node.op_type == "Cast"}
    assert types == {1, 16}
    verified = sandbox.manifest("net_bf16").verification
    assert verified.precision == "bf16"
    assert "a float32 graph with the same rounding was verified" in " ".join(verified.notes)
    assert 1e-4 < verified.max_abs_error["y"] < 5e-2
    files = [path.name for path in (sandbox.root / "model_repository/net_bf16/1").iterdir()]
    assert "emulated.onnx" not in files


def test_bf16_is_skipped_where_a_cpu_may_serve_it(sandbox: Sandbox) -> None:
    write(sandbox, "bf16")
    outcome = sandbox.build()["net_bf16"]
    assert outcome.status == "skipped"
    assert "onnxruntime computes nothing in BF16 on the CPU: serve it on GPUs only" in str(outcome.reason)


@pytest.mark.parametrize(
    ("wanted", "kept"), [("MatMul", ["first", "second"]), ("second", ["second"])], ids=["operator", "node"]
)
def test_what_keep_float32_names_stays_in_float32(sandbox: Sandbox, wanted: str, kept: list[str]) -> None:
    write(sandbox, f"{{fp16: {{keep_float32: [{wanted}]}}}}")
    outcome = sandbox.build()["net_fp16"]
    if wanted == "MatMul":
        assert "all that could compute in FP16 stays in float32: first: keep_float32" in str(outcome.error)
        return
    facts = facts_of(sandbox)
    assert [node for node, reason in facts["kept"].items() if reason == "keep_float32"] == kept


def test_keep_float32_of_nothing_is_an_error(sandbox: Sandbox) -> None:
    write(sandbox, "{fp16: {keep_float32: [Matmul]}}")
    error = str(sandbox.build()["net_fp16"].error)
    assert "net_fp16: fp16: keep_float32: the graph has no operator and no node 'Matmul'" in error
    assert "did you mean 'MatMul'?" in error


def test_nodes_with_values_beyond_fp16_stay_in_float32(sandbox: Sandbox) -> None:
    folder = write(sandbox, scale=30000.0)
    net(folder / "model.onnx", scale=1e-3, tail="Tanh")
    assert sandbox.build()["net_fp16"].status == "new"
    facts = facts_of(sandbox)
    assert "on the samples, FP16 ends at 65504" in facts["kept"]["first"]
    assert facts["nodes"] == 2
    assert "'x' reaches" in facts["kept"]["first"]


def test_a_graph_whose_values_are_all_beyond_fp16_is_an_error(sandbox: Sandbox) -> None:
    folder = write(sandbox, scale=30000.0)
    net(folder / "model.onnx", scale=1000.0, tail="Tanh")
    error = str(sandbox.build()["net_fp16"].error)
    assert "all that could compute in FP16 stays in float32: first: 'h0' reaches" in error


def test_nodes_that_add_most_error_stay_in_float32_until_the_gate_holds(sandbox: Sandbox) -> None:
    write(sandbox, more="gates: {tolerance: {atol: 1.0e-4, rtol: 0}}")
    assert sandbox.build()["net_fp16"].status == "new"
    facts = facts_of(sandbox)
    assert facts["tried"] > 1
    assert [reason.partition(" of ")[0] for node, reason in facts["kept"].items() if node != "tail"] == [
        "it adds a relative error"
    ]
    assert sandbox.manifest("net_fp16").verification.max_abs_error["y"] <= 1e-4


def test_a_gate_that_no_graph_passes_names_the_worst_nodes(sandbox: Sandbox) -> None:
    write(sandbox, "{fp16: {budget: 2}}", more="gates: {tolerance: {atol: 1.0e-9, rtol: 0}}")
    error = str(sandbox.build()["net_fp16"].error)
    assert "net_fp16: fp16: not accurate enough in FP16" in error
    assert "'y' differs by" in error
    assert "most error comes from" in error


def quantised(path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    net(path)
    quantize_dynamic(path, path)


def half_already(path: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    net(path)
    onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), path)


def inside_if(path: Path) -> None:
    """Everything lies inside an If."""
    import onnx
    from onnx import TensorProto, helper

    net(path)
    model = onnx.load(path)
    graph = model.graph
    branches = []
    for name in ("then", "else"):
        branch = helper.make_graph(list(graph.node), name, [], list(graph.output))
        branches.append(branch)
    condition = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    node = helper.make_node("If", ["yes"], ["y"], name="either", then_branch=branches[0], else_branch=branches[1])
    del graph.node[:]
    graph.node.extend([condition, node])
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (quantised, "its products are of INT8, which take float32 only (DynamicQuantizeLinear, MatMulInteger)"),
        (half_already, "the model computes in FP16 already"),
        (inside_if, "what could compute in FP16 lies inside either: only the main graph is converted"),
    ],
    ids=["dynamic INT8", "FP16", "inside If"],
)
def test_a_graph_in_which_nothing_can_be_converted_says_why(sandbox: Sandbox, make: Any, says: str) -> None:
    make(write(sandbox) / "model.onnx")
    error = str(sandbox.build()["net_fp16"].error)
    assert says in error
    assert "hint: leave fp16 out" in error


def test_weights_outside_the_file_are_converted(sandbox: Sandbox) -> None:
    import onnx

    file = write(sandbox) / "model.onnx"
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="model.data", size_threshold=0)
    assert sandbox.build()["net_fp16"].status == "new"
    assert [path.name for path in (sandbox.root / "model_repository/net_fp16/1").glob("*.data")] == []


def test_inputs_of_fp16_stay_as_they_are(sandbox: Sandbox) -> None:
    import onnx
    from onnx import TensorProto, helper

    folder = write(sandbox)
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "wide"
    onnx.save(model, folder / "model.onnx")
    (folder / "data.py").write_text(DATA_PY.format(scale=1.0).replace("float32", "float16"))
    outcome = sandbox.build()["net_fp16"]
    assert outcome.status == "new", outcome.error
    assert "TYPE_FP16" in sandbox.config("net_fp16")


def test_a_custom_operator_stays_in_float32() -> None:
    from onnx import TensorProto, helper

    node = helper.make_node("Mine", ["x"], ["y"], name="mine", domain="ai.mine")
    product = helper.make_node("MatMul", ["y", "y"], ["z"], name="product")
    graph = helper.make_graph(
        [node, product],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 2])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.mine", 1)]
    lowered = lower(helper.make_model(graph, opset_imports=opsets), FP16, dict.fromkeys("xyz", "tensor(float)"))
    assert [item.op_type for item in lowered.model.graph.node] == ["Mine", "Cast", "MatMul", "Cast"]
    assert lowered.nodes == ("product",)


def test_a_tensor_that_an_inner_graph_reads_is_there_in_float32(tmp_path: Path) -> None:
    """The body of an If reads what a node in FP16 makes."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    net(tmp_path / "m.onnx", tail="Tanh")
    model = onnx.load(tmp_path / "m.onnx")
    value = [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)]
    bodies = {
        name: helper.make_graph([helper.make_node(name, ["h2"], ["chosen"])], name, [], value)
        for name in ("Tanh", "Neg")
    }
    model.graph.node.pop()
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(yes)
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["y"], name="if", then_branch=bodies["Tanh"], else_branch=bodies["Neg"])
    )
    lowered = lower(canonicalise(model), FP16, value_types(model, tmp_path))
    save_canonical(lowered.model, tmp_path / "half.onnx")
    feed = {"x": np.ones((2, 8), np.float32)}
    one, other = (
        onnxruntime.InferenceSession(str(tmp_path / name)).run(None, feed)[0] for name in ("m.onnx", "half.onnx")
    )
    assert np.abs(one - other).max() < 1e-2
    assert "h2" in {name for node in lowered.model.graph.node for name in node.output}


@pytest.mark.parametrize(
    ("value", "becomes"), [(-3.4e38, -32752.0), (float("-inf"), float("-inf")), (1e-12, None), (1e6, None)]
)
def test_a_mask_becomes_half_of_the_largest_number_and_other_constants_stay(
    value: float, becomes: float | None
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["p"], name="product"),
        helper.make_node("Where", ["keep", "p", "c"], ["m"], name="masked"),
    ]
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [tensor("x", TensorProto.FLOAT, [2, 2]), tensor("keep", TensorProto.BOOL, [2, 2])],
        [tensor("m", TensorProto.FLOAT, [2, 2])],
        [numpy_helper.from_array(np.array(value, np.float32), "c")],
    )
    types = dict.fromkeys(("x", "p", "c", "m"), "tensor(float)") | {"keep": "tensor(bool)"}
    lowered = lower(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), FP16, types)
    if becomes is None:
        assert "constant 'c'" in lowered.kept["masked"]
        return
    (constant,) = lowered.model.graph.initializer
    assert numpy_helper.to_array(constant) == becomes
    assert lowered.nodes == ("product", "masked")
