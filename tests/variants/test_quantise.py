"""The technique `quantise`: dynamic and static INT8, SmoothQuant, and the search for layers that stay in float."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelwright.errors import StepError
from modelwright.onnx.runtime import load_session
from modelwright.steps.int8 import prepare
from modelwright.steps.int8_layers import choose
from modelwright.steps.smoothing import channel_maxima, smoothed
from modelwright.variants.techniques.quantise import QuantiseOptions
from tests.conftest import Sandbox, new_sandbox
from tests.variants import int8_graphs as graphs


def built(sandbox: Sandbox) -> dict[str, Any]:
    """The facts of the step `quantise`, once the variant was built."""
    outcome = sandbox.build("small_int8")["small_int8"]
    assert outcome.status == "new", outcome.error
    step = next(step for step in sandbox.manifest("small_int8").lineage if step.step == "quantise")
    return dict(step.facts)


def failed(sandbox: Sandbox) -> str:
    outcome = sandbox.build("small_int8")["small_int8"]
    assert outcome.status == "failed"
    assert not (sandbox.root / "model_repository/small_int8").exists()
    return str(outcome.error)


def published(sandbox: Sandbox) -> onnx.ModelProto:
    return onnx.load(sandbox.root / "model_repository/small_int8/1/model.onnx")


def operators(sandbox: Sandbox) -> Counter[str]:
    return Counter(node.op_type for node in published(sandbox).graph.node)


def test_dynamic_weights_are_int8_and_ranges_are_those_of_a_request(sandbox: Sandbox) -> None:
    graphs.builder(sandbox, graphs.perceptron, "{mode: dynamic}", gates="error: {max: 0.1}, tolerance: {atol: 0.2}")
    facts = built(sandbox)
    found = operators(sandbox)
    assert found["MatMulInteger"] == 2
    assert found["DynamicQuantizeLinear"] == 2
    assert facts["mode"] == "dynamic"
    assert facts["layers"] == 2
    assert facts["instruction_set"] == sandbox.manifest("small_int8").verification.instruction_set != ""
    assert "in_float" not in facts
    assert sandbox.manifest("small_int8").verification.precision == "int8"


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_weights_may_stand_in_constant_nodes(sandbox: Sandbox, mode: str) -> None:
    gates = "error: {max: 0.1}, tolerance: {atol: 0.2}"
    graphs.builder(sandbox, graphs.with_constants, f"{{mode: {mode}}}", gates=gates)
    assert built(sandbox)["layers"] == 2


@pytest.mark.parametrize("method", ["min-max", "entropy", "percentile"])
def test_static_ranges_are_measured_once(sandbox: Sandbox, method: str) -> None:
    graphs.builder(sandbox, graphs.perceptron, f"{{method: {method}, calibration: 'data:calibration', samples: 12}}")
    facts = built(sandbox)
    assert operators(sandbox)["QuantizeLinear"] >= 2
    assert facts["mode"] == "static"
    assert facts["calibrated_on"] == 12
    assert 0 < facts["error"] < 0.1


def test_convolutions_pass_int8_on(sandbox: Sandbox) -> None:
    graphs.builder(sandbox, graphs.convolution, "{mode: static}", shape="1, 8, 8")
    facts = built(sandbox)
    assert facts["layers"] == 5  # two Conv, Add, GlobalAveragePool, Gemm
    assert facts["calibrated_on"] == 24  # the samples
    scales = {
        item.name: list(item.dims) for item in published(sandbox).graph.initializer if item.name.endswith("scale")
    }
    assert [8] in scales.values()  # a scale for each channel
    made_by = {name: node for node in published(sandbox).graph.node for name in node.output}
    assert made_by["y"].op_type == "Gemm"  # the answers themselves are float


def test_a_batch_norm_is_folded_into_the_convolution_before_it(tmp_path: Path) -> None:
    """Between Q/DQ nodes onnxruntime would not fuse it any more. A sum stays beside its product, under its own name."""
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"], "norm"),
        onnx.helper.make_node("GlobalAveragePool", ["b"], ["c"], "pool"),
        onnx.helper.make_node("Flatten", ["c"], ["d"], "flatten"),
        onnx.helper.make_node("MatMul", ["d", "v"], ["e"], "product"),
        onnx.helper.make_node("Add", ["e", "bias"], ["y"], "sum"),
    ]
    four = dict.fromkeys(("scale", "shift", "mean", "variance"), np.full(4, 0.5, np.float32))
    weights = {"w": graphs.weight(4, 1, 3, 3), "v": graphs.weight(4, 4), "bias": graphs.weight(4), **four}
    graphs.save(tmp_path / "model.onnx", nodes, weights, ["batch", 1, 8, 8], ["batch", 4])
    prepared = prepare(tmp_path / "model.onnx", tmp_path, QuantiseOptions(mode="static"))
    assert "BatchNormalization" not in {node.op_type for node in prepared.graph.node}
    assert {"conv", "product", "sum"} <= {node.name for node in prepared.graph.node}


def test_a_sum_of_sizes_is_no_layer(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Shape", ["x"], ["sizes"], "shape"),
        onnx.helper.make_node("Add", ["sizes", "more"], ["larger"], "sizes_added"),
        onnx.helper.make_node("Expand", ["a", "larger"], ["y"], "expand"),
    ]
    weights = {"w": graphs.weight(1, 1, 3, 3), "more": np.array([0, 1, 0, 0])}
    graphs.save(tmp_path / "model.onnx", nodes, weights, ["batch", 1, 8, 8], ["batch", 2, 8, 8])
    options = QuantiseOptions(mode="static")
    assert [layer.name for layer in choose(prepare(tmp_path / "model.onnx", tmp_path, options), options)] == ["conv"]


def test_samples_may_differ_in_size(sandbox: Sandbox) -> None:
    folder = graphs.builder(sandbox, graphs.sequence, "{method: percentile}")
    (folder / "data.py").write_text(
        "import numpy as np\n\n\ndef samples():\n    rng = np.random.default_rng(0)\n"
        "    return {'x': [rng.normal(size=(n, 16)).astype(np.float32) for n in (3, 5, 4, 3)]}\n\n\n"
        "def evaluate(infer):\n    return {'error': 0.0}\n"
    )
    assert built(sandbox)["calibrated_on"] == 4


def test_a_recurrent_layer_becomes_dynamic(sandbox: Sandbox) -> None:
    gates = "error: {max: 0.1}, tolerance: {atol: 0.1}"
    graphs.builder(sandbox, graphs.recurrent, "{mode: dynamic}", gates=gates, shape="6, 16")
    built(sandbox)
    assert operators(sandbox)["DynamicQuantizeLSTM"] == 1


@pytest.mark.parametrize(
    ("options", "gates", "text"),
    [
        ("{mode: dynamic, budget: 8}", "error: {max: 0.02}, tolerance: {atol: 0.5}", "dynamic"),
        ("{mode: static, budget: 8, calibration: 'data:calibration'}", "error: {max: 0.02}", "static"),
    ],
    ids=["dynamic", "static"],
)
def test_layers_that_hurt_stay_in_float(sandbox: Sandbox, options: str, gates: str, text: str) -> None:
    graphs.builder(sandbox, graphs.with_outlier, options, gates=gates)
    facts = built(sandbox)
    assert facts["mode"] == text
    assert [layer["layer"] for layer in facts["in_float"]] == ["hurts"]
    assert facts["in_float"][0]["operator"] == "MatMul"
    assert facts["in_float"][0]["harm"] > 0.1
    assert facts["layers"] == 2
    assert 2 <= facts["evaluations"] <= 8
    ranked = json.loads(next((sandbox.root / ".modelwright/store").rglob("sensitivity.json")).read_text())
    assert ranked[0]["layer"] == "hurts"
    assert len(ranked) == 3


def test_a_tolerance_is_a_gate_of_the_search(sandbox: Sandbox) -> None:
    folder = graphs.builder(sandbox, graphs.with_outlier, "{mode: static}", gates="tolerance: {atol: 0.1}")
    yaml = folder / "model.yaml"
    yaml.write_text(yaml.read_text().replace("    evaluate: data:evaluate\n", ""))
    assert [layer["layer"] for layer in built(sandbox)["in_float"]] == ["hurts"]


def test_no_candidate_that_passes_is_an_error_with_the_best_of_them(sandbox: Sandbox) -> None:
    graphs.builder(sandbox, graphs.with_outlier, "{mode: static}", gates="error: {max: 0.00001}")
    error = failed(sandbox)
    assert "small_int8: quantise: no candidate passes the gates, of 3 that were evaluated" in error
    assert "the best, with 2 of 3 layers in float: error is 0.0" in error
    assert "the gate asks for at most 1e-05" in error
    assert "layers that hurt most: hurts (" in error
    assert "smooth_quant: true" in error


def test_a_budget_of_one_does_not_search(sandbox: Sandbox) -> None:
    graphs.builder(sandbox, graphs.with_outlier, "{mode: static, budget: 1}", gates="error: {max: 0.02}")
    error = failed(sandbox)
    assert "no candidate passes the gates, of 1 that were evaluated" in error
    assert "a larger budget" in error


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_smooth_quant_chooses_what_loses_least(sandbox: Sandbox, mode: str) -> None:
    gates = "error: {max: 0.05}, tolerance: {atol: 1.0}"
    options = f"{{mode: {mode}, smooth_quant: true, calibration: 'data:calibration'}}"
    graphs.builder(sandbox, graphs.with_outlier, options, gates=gates)
    facts = built(sandbox)
    assert "in_float" not in facts
    assert 0.4 < facts["smooth_quant"] < 1
    assert facts["error"] < 0.05


@pytest.mark.parametrize("make", [graphs.with_outlier, graphs.perceptron])
def test_a_smoothed_graph_computes_the_same(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.onnx")
    options = QuantiseOptions(mode="static")
    model = prepare(tmp_path / "model.onnx", tmp_path, options)
    layers = choose(model, options)
    feeds = [{"x": np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)} for _ in range(2)]
    maxima = channel_maxima(model, layers, feeds, tmp_path)
    onnx.save(smoothed(model, layers, maxima, 0.5), tmp_path / "smoothed.onnx")
    plain, other = (load_session(tmp_path / name).run(None, feeds[0])[0] for name in ("model.onnx", "smoothed.onnx"))
    np.testing.assert_allclose(plain, other, rtol=1e-4, atol=1e-5)
    if make is graphs.with_outlier:
        assert maxima["stretched"][0] == pytest.approx(1000 * maxima["x"][0])


def test_rows_of_a_dynamic_model_depend_on_each_other(sandbox: Sandbox) -> None:
    """Each answer is within the tolerance of the source's, the one alone and the one in a batch, on either side."""
    folder = graphs.builder(sandbox, graphs.perceptron, "{mode: dynamic}", gates="tolerance: {atol: 0.05}")
    data = folder / "data.py"
    data.write_text(
        data.read_text().replace("default_rng(1).normal(size=(24, 16))", "default_rng(178).normal(size=(4, 16))")
    )
    error = failed(sandbox)
    assert "small_int8: verify: sample " in error
    assert "from the answer alone, allowed 5.0e-02" in error
    assert "hint: dynamic quantisation gives all rows of a request one range: mode: static has fixed ranges" in error


@pytest.mark.parametrize(
    ("options", "in_int8"),
    [
        ("{mode: static, exclude: [first]}", ["second"]),
        ("{mode: static, only: [Gemm]}", ["second"]),
        ("{mode: dynamic, exclude: [MatMul]}", ["second"]),
        ("{mode: dynamic, only: [first, second], exclude: [second]}", ["first"]),
    ],
)
def test_only_and_exclude(sandbox: Sandbox, options: str, in_int8: list[str]) -> None:
    graphs.builder(sandbox, graphs.perceptron, options, gates="error: {max: 0.1}, tolerance: {atol: 0.2}")
    assert built(sandbox)["layers"] == len(in_int8)


def without_weights(path: Path) -> None:
    graphs.save(path, [onnx.helper.make_node("Relu", ["x"], ["y"])], {}, ["batch", 16], ["batch", 16])


def quantised_already(path: Path) -> None:
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    graphs.save(path, nodes, {"scale": np.float32(0.1), "zero": np.uint8(0)}, ["batch", 16], ["batch", 16])


def half(path: Path) -> None:
    graphs.perceptron(path, half=True)


@pytest.mark.parametrize(
    ("make", "options", "message", "hint"),
    [
        (without_weights, "{}", "nothing to quantise: mode static takes Conv, ConvTranspose, Gemm, MatMul, Gather with", "leave quantise out"),
        (half, "{mode: dynamic}", "nothing to quantise: mode dynamic takes MatMul, Gemm, Gather", "and weights in half precision\n  hint: write quantise before fp16"),
        (graphs.convolution, "{mode: dynamic, exclude: [Gemm]}", "only and exclude leave nothing to quantise", "take names out"),
        (quantised_already, "{}", "the graph is INT8 already: it has DequantizeLinear, QuantizeLinear", "take quantise out"),
        (graphs.perceptron, "{only: [Relu]}", "only: 'Relu' cannot be quantised in mode static", "it takes Add, Concat"),
        (graphs.perceptron, "{exclude: [frist]}", "exclude: the graph has no node and no operator 'frist'", "did you mean 'first'?"),
        (graphs.recurrent, "{mode: dynamic, smooth_quant: 0.5}", "smooth_quant: the graph has no layer that it applies to", "leave smooth_quant out"),
    ],
    ids=["no weights", "half precision", "all excluded", "INT8 already", "no such kernel", "misspelt", "nothing to smooth"],
)  # fmt: skip
def test_a_graph_that_cannot_become_int8(
    sandbox: Sandbox, make: Callable[[Path], None], options: str, message: str, hint: str
) -> None:
    shape = "1, 8, 8" if make is graphs.convolution else "6, 16" if make is graphs.recurrent else "16"
    folder = graphs.builder(sandbox, make, options, shape=shape)
    if make is half:
        (folder / "data.py").write_text((folder / "data.py").read_text().replace("float32", "float16"))
    error = failed(sandbox)
    assert f"small_int8: quantise: {message}" in error
    assert hint in error


def test_an_old_opset_is_raised(sandbox: Sandbox) -> None:
    graphs.builder(sandbox, graphs.perceptron, "{mode: static}", opset=9)
    assert built(sandbox)["signature"]["opset"] == 13


def test_an_opset_that_cannot_be_raised(tmp_path: Path) -> None:
    """With a GRU of opset 6, from which ONNX's converter has no way."""
    nodes = [onnx.helper.make_node("GRU", ["x", "w", "r"], ["", "y"], hidden_size=8)]
    weights = {"w": graphs.weight(1, 24, 16), "r": graphs.weight(1, 24, 8)}
    graphs.save(tmp_path / "model.onnx", nodes, weights, [6, "batch", 16], [1, "batch", 8], opset=6)
    with pytest.raises(StepError, match="its opset is 6, mode dynamic needs 11, and ONNX cannot convert") as error:
        prepare(tmp_path / "model.onnx", tmp_path, QuantiseOptions(mode="dynamic"))
    assert error.value.hint == "export it with opset 11 or later"


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_operators_of_onnxruntimes_own_have_types_that_onnx_does_not_know(sandbox: Sandbox, mode: str) -> None:
    """Their domain need not be imported, for onnxruntime; so do graphs look that its optimisers made."""

    def fused(path: Path) -> None:
        nodes = [
            onnx.helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
            onnx.helper.make_node("BiasGelu", ["a", "bias"], ["b"], "gelu", domain="com.microsoft"),
            onnx.helper.make_node("MatMul", ["b", "w2"], ["c"], "second"),
            onnx.helper.make_node("Relu", ["c"], ["y"], "relu"),
        ]
        weights = {"w1": graphs.weight(16, 32), "bias": graphs.weight(32), "w2": graphs.weight(32, 4)}
        graphs.save(path, nodes, weights, ["batch", 16], ["batch", 4])

    options = f"{{mode: {mode}, smooth_quant: 0.5, calibration: 'data:calibration'}}"
    graphs.builder(sandbox, fused, options, gates="error: {max: 0.2}, tolerance: {atol: 1.0}")
    assert built(sandbox)["layers"] == 2
    assert {opset.domain for opset in published(sandbox).opset_import} == {"", "com.microsoft"}
    assert operators(sandbox)["MatMulInteger" if mode == "dynamic" else "QuantizeLinear"] >= 2


def test_a_convolution_alone_is_for_mode_static(sandbox: Sandbox) -> None:
    def one(path: Path) -> None:
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
        graphs.save(path, [node], {"w": graphs.weight(2, 1, 3, 3)}, ["batch", 1, 8, 8], ["batch", 2, 8, 8])

    graphs.builder(sandbox, one, "{mode: dynamic}", shape="1, 8, 8")
    assert "hint: mode: static quantises convolutions" in failed(sandbox)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("{'z': np.zeros((4, 16), np.float32)}", "the samples have 'z': no such input"),
        ("{'x': np.zeros((4, 16))}", "the samples' 'x' is float64, the model takes FP32"),
        ("{'x': np.zeros((4, 7), np.float32)}", "a sample of 'x' has shape [7], the model takes [16]"),
        ("{'x': np.zeros((0, 16), np.float32)}", "every tensor needs the same number of samples, at least one"),
        ("{}", "expected {name: array}, got no tensors"),
        ("None", "expected {name: array}, got NoneType"),
        ("{'x': np.full((4, 16), np.nan, np.float32)}", "'x' of sample 0 has values that are NaN or infinite"),
        ("[][1]", "raised IndexError"),
    ],
)
def test_calibration_data_that_do_not_fit(sandbox: Sandbox, returned: str, message: str) -> None:
    folder = graphs.builder(sandbox, graphs.perceptron, "{mode: static, calibration: 'wrong:data'}")
    (folder / "wrong.py").write_text(f"import numpy as np\n\n\ndef data():\n    return {returned}\n")
    error = failed(sandbox)
    assert "quantise.calibration wrong:data" in error
    assert message in error


def test_a_model_that_overflows_on_calibration_data(sandbox: Sandbox) -> None:
    folder = graphs.builder(sandbox, graphs.perceptron, "{mode: static, calibration: 'wrong:data'}")
    (folder / "wrong.py").write_text(
        "import numpy as np\n\n\ndef data():\n    return {'x': np.full((4, 16), 3e38, np.float32)}\n"
    )
    assert "is not finite" in failed(sandbox)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{mode: dynamic, method: entropy}", "method: is for mode: static"),
        ("{mode: dynamic, calibration: 'data:calibration'}", "mode: dynamic needs no calibration data"),
        ("{percentile: 99}", "percentile: is for method: percentile"),
        ("{budget: 31}", "less than or equal to 30"),
        ("{smooth_quant: 1.5}", "smooth_quant: alpha is between 0 and 1, got 1.5"),
        ("{sample: 3}", "did you mean 'samples'?"),
        ("{calibration: 'data:nothing'}", "has no function 'nothing'"),
    ],
)
def test_options_that_do_not_fit(sandbox: Sandbox, options: str, message: str) -> None:
    graphs.builder(sandbox, graphs.perceptron, options)
    for command in (["build"], ["build", "small_int8"]):
        result = sandbox.cli(*command)
        assert result.exit_code == 1
        assert message in result.output


def test_weights_in_another_file(sandbox: Sandbox) -> None:
    folder = graphs.builder(sandbox, graphs.perceptron, "{mode: static, smooth_quant: 0.5}")
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    facts = built(sandbox)
    assert facts["layers"] == 2
    assert facts["smooth_quant"] == 0.5


def test_weights_that_two_layers_share(tmp_path: Path) -> None:
    """onnxruntime's quantiser transposes the weights of a Gemm where they lie, for all that use them."""
    nodes = [
        onnx.helper.make_node("Gemm", ["x", "w"], ["a"], "one", transB=1),
        onnx.helper.make_node("Gemm", ["a", "w"], ["y"], "two", transB=1),
    ]
    graphs.save(tmp_path / "model.onnx", nodes, {"w": graphs.weight(16, 16)}, ["batch", 16], ["batch", 16])
    options = QuantiseOptions(mode="dynamic")
    model = prepare(tmp_path / "model.onnx", tmp_path, options)
    assert [layer.name for layer in choose(model, options)] == ["one", "two"]
    onnx.save(model, tmp_path / "split.onnx")
    feed = {"x": np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)}
    plain, split = (load_session(tmp_path / name).run(None, feed)[0] for name in ("model.onnx", "split.onnx"))
    np.testing.assert_allclose(plain, split, rtol=1e-4, atol=1e-5)


def test_the_same_inputs_give_the_same_bytes(sandbox: Sandbox, tmp_path: Path) -> None:
    options = "{mode: static, method: entropy, smooth_quant: true}"
    graphs.builder(sandbox, graphs.perceptron, options)
    built(sandbox)
    before = sandbox.manifest("small_int8").version_digest
    other = Sandbox(tmp_path / "other")
    (other.root / "builders").mkdir(parents=True)
    (other.root / "modelwright.toml").write_text((sandbox.root / "modelwright.toml").read_text())
    graphs.builder(other, graphs.perceptron, options)
    built(other)
    assert other.manifest("small_int8").version_digest == before


def test_metrics_do_not_depend_on_the_number_of_samples(tmp_path: Path) -> None:
    """They are measured in the same requests as the plain model's and those of the search: rows share a range here."""
    found = []
    for count in (2, 24):
        sandbox = new_sandbox(tmp_path / str(count))
        folder = graphs.builder(sandbox, graphs.perceptron, "{mode: dynamic}", gates="tolerance: {atol: 100}")
        data = (folder / "data.py").read_text().replace("size=(24", f"size=({count}")
        stretched = "    x *= np.arange(64, dtype=np.float32)[:, None]\n    own, plain"
        (folder / "data.py").write_text(data.replace("    own, plain", stretched))
        built(sandbox)
        found.append(sandbox.manifest("small_int8").metrics)
    assert found[0] == found[1]
