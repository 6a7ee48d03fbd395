"""TensorRT for RTX, which has NVIDIA's parser and builder, in place of TensorRT: no GPU is needed, and none is used."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.build.outcome import Outcome
from modelwright.digest import sha256_file
from modelwright.facts.plan import PlanOptions, PlanProfile, PlanRequest, ShapeRange
from modelwright.steps.plan_folders import PROGRAM, write_request
from tests.conftest import Sandbox
from tests.tensorrt.packages import CHECK
from tests.variants.test_variants import with_variants

pytestmark = [pytest.mark.tensorrt, pytest.mark.usefixtures("rtx")]


def variant(options: str = "", steps: str = "") -> str:
    return f"{{name: doubled_trt, steps: [{steps}{{tensorrt: {{{options}}}}}]}}"


def build(sandbox: Sandbox, options: str = "") -> Outcome:
    with_variants(sandbox, variant(options))
    return sandbox.build("doubled_trt")["doubled_trt"]


def found(sandbox: Sandbox) -> dict[str, Any]:
    """What the last check found."""
    kept = [json.loads(path.read_text()) for path in (sandbox.root / ".modelwright/store").glob("*/*/artifact.json")]
    checks = [record for record in kept if record["payload"]["step"] == "tensorrt_check"]
    (record,) = checks
    result: dict[str, Any] = record["facts"]["check"]
    return result


def test_a_graph_is_checked_and_nothing_is_published(sandbox: Sandbox) -> None:
    outcome = build(sandbox)
    assert outcome.status == "skipped", outcome
    assert outcome.reason.startswith("checked, not built (")
    assert "not what a plan answers, and not how fast" in outcome.reason
    assert "local: TensorRT" in outcome.reason
    assert not (sandbox.repository.root / "doubled_trt").exists()
    check = found(sandbox)
    assert check["compute_capabilities"] == ["8.9"]
    assert check["layers"] >= 1
    assert check["size_bytes"] > 0
    assert check["inputs"] == [{"name": "x", "dtype": "FP32", "dims": [-1, 2]}]
    assert check["outputs"] == [{"name": "y", "dtype": "FP32", "dims": [-1, 2]}]


def test_every_option_of_the_builder_is_taken(sandbox: Sandbox) -> None:
    options = (
        "workspace_mb: 64, builder_level: 2, sparsity: true, tf32: true, version_compatible: true,"
        " hardware_compatibility: ampere_plus, compute_capabilities: ['8.0', '8.9'],"
        " profiles: [{batch: 1}, {batch: {min: 1, opt: 4, max: 8}}]"
    )
    assert build(sandbox, options).status == "skipped"
    assert found(sandbox)["compute_capabilities"] == ["8.0", "8.9"]


def test_a_gpu_that_tensorrt_for_rtx_does_not_know_is_checked_for_the_newest(sandbox: Sandbox) -> None:
    assert build(sandbox, "compute_capabilities: ['9.0']").status == "skipped"
    assert found(sandbox)["compute_capabilities"] == ["12.1"]


def test_weights_beside_the_graph_are_read(sandbox: Sandbox) -> None:
    with_variants(sandbox, variant())
    folder = sandbox.root / "builders" / "doubled"
    model = onnx.load(str(folder / "model.onnx"))
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert sandbox.build("doubled_trt")["doubled_trt"].status == "skipped"


def graph(*nodes: Any, rows: str = "rows") -> onnx.ModelProto:
    """x, float32 (batch, 2), through nodes; a parameter of a module `encoder.layer.0`."""
    weight = numpy_helper.from_array(np.eye(2, dtype=np.float32), "encoder.layer.0.weight")
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 2])]
    return helper.make_model(
        helper.make_graph(
            list(nodes), "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])], made, [weight]
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )


@pytest.mark.parametrize(
    ("steps", "dtype"),
    [
        ("fp16", "FP16"),
        ("bf16", "BF16"),
        ("{quantise: {mode: static, activations: symmetric}}", "INT8"),
    ],
)
def test_the_precision_of_the_graph_is_that_of_the_network(sandbox: Sandbox, steps: str, dtype: str) -> None:
    """Strongly typed: TensorRT computes what the graph says, and in nothing less."""
    chain = f"{{name: doubled_trt, steps: [{steps}, tensorrt], gates: {{accuracy: {{min: -9}}}}}}"
    with_variants(sandbox, chain)
    model = graph(helper.make_node("MatMul", ["x", "encoder.layer.0.weight"], ["y"], name="matmul"), rows="batch")
    onnx.save(model, str(sandbox.root / "builders" / "doubled" / "model.onnx"))
    outcome = sandbox.build("doubled_trt")["doubled_trt"]
    assert outcome.status == "skipped", outcome
    assert found(sandbox)["layers_by_type"].get(dtype), found(sandbox)


def test_an_unsupported_operator_is_named_with_its_node_and_layer(sandbox: Sandbox) -> None:
    """Unique is an operator of ONNX that onnxruntime runs and TensorRT does not."""
    with_variants(sandbox, variant(), evaluate="")
    model = graph(
        helper.make_node("MatMul", ["x", "encoder.layer.0.weight"], ["h"], name="matmul"),
        helper.make_node("Unique", ["h"], ["u", "i", "inverse", "c"], name="node_Unique_7", axis=0, sorted=0),
        helper.make_node("Gather", ["u", "inverse"], ["y"], name="back"),
        rows="batch",
    )
    onnx.save(model, str(sandbox.root / "builders" / "doubled" / "model.onnx"))
    outcome = sandbox.build("doubled_trt")["doubled_trt"]
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert outcome.error.message == (
        "doubled_trt: tensorrt (checked without a GPU): TensorRT does not take the operator Unique of the graph: "
        "node 'node_Unique_7' (Unique, after encoder.layer.0): UNSUPPORTED_NODE"
    )
    assert "another way in the model" in outcome.error.hint


def request(onnx_file: Path, **shapes: ShapeRange) -> PlanRequest:
    return PlanRequest(
        model="m",
        release="26.07",
        tensorrt="",
        compute_capability="8.9",
        onnx=sha256_file(onnx_file),
        profiles=(PlanProfile(inputs=shapes),),
        options=PlanOptions(),
    )


def program(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and what the program wrote."""
    command = [sys.executable, "-m", PROGRAM, str(folder / "in"), str(folder / "out"), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    written = sorted((folder / "out").glob("*.json"))
    assert len(written) == 1, done
    result: dict[str, Any] = json.loads(written[0].read_text())
    return done.returncode, result


def test_profiles_that_the_graph_cannot_compute_are_refused(tmp_path: Path) -> None:
    """A reshape to (-1, 2, 4) needs a multiple of eight values, which no batch of three has."""
    shape = numpy_helper.from_array(np.array([3, 4], dtype=np.int64), "shape")
    model = graph(helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape"))
    model.graph.initializer.append(shape)
    onnx.save(model, str(tmp_path / "model.onnx"))
    wanted = request(tmp_path / "model.onnx", x=ShapeRange(min=(1, 2), opt=(2, 2), max=(3, 2)))
    write_request(tmp_path / "in", wanted, tmp_path / "model.onnx")
    code, failure = program(tmp_path, "--check", "8.9")
    assert code == 1
    assert "TensorRT" in failure["message"]
    assert "reshape" in failure["message"]


def test_a_profile_out_of_order_is_refused_by_tensorrt_itself(tmp_path: Path) -> None:
    """model.yaml cannot say this: `SizeRange` refuses it before."""
    model = graph(helper.make_node("Relu", ["x"], ["y"], name="relu"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    wanted = request(tmp_path / "model.onnx", x=ShapeRange(min=(1, 2), opt=(8, 2), max=(4, 2)))
    write_request(tmp_path / "in", wanted, tmp_path / "model.onnx")
    code, failure = program(tmp_path, "--check", "8.9")
    assert code == 1
    assert failure["message"].startswith("TensorRT refuses the optimisation profiles (TensorRT: ")


def test_a_profile_of_another_input_is_refused(tmp_path: Path) -> None:
    model = graph(helper.make_node("Relu", ["x"], ["y"], name="relu"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    wanted = request(tmp_path / "model.onnx", z=ShapeRange(min=(1, 2), opt=(8, 2), max=(8, 2)))
    write_request(tmp_path / "in", wanted, tmp_path / "model.onnx")
    assert program(tmp_path, "--check", "8.9")[1]["message"] == (
        "profile 0: TensorRT's network has no input 'z', only x"
    )


def test_without_a_gpu_no_plan_is_built(tmp_path: Path) -> None:
    model = graph(helper.make_node("Relu", ["x"], ["y"], name="relu"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    wanted = request(tmp_path / "model.onnx", x=ShapeRange(min=(1, 2), opt=(8, 2), max=(8, 2)))
    write_request(tmp_path / "in", wanted, tmp_path / "model.onnx")
    code, failure = program(tmp_path)
    assert code == 1
    assert failure["message"] == "CUDA shows no GPU here"


def test_what_is_installed_is_what_the_pins_say() -> None:
    """`make test-tensorrt` and the extra tensorrt-check are of one version."""
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text()
    for name in ("polygraphy", "tensorrt-rtx-cu12"):
        wanted = re.search(rf"^{name}==(\S+)$", pins, re.MULTILINE)
        assert wanted is not None
        assert list(CHECK.glob(f"{name.replace('-', '_')}-{wanted[1]}.dist-info"))
    assert os.environ["PYTHONPATH"].startswith(str(CHECK))
