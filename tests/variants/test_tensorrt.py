"""TensorRT plans as variants, built by a double: what goes to a plan builder, what is accepted, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelwright.build.outcome import Outcome
from modelwright.facts.plan import PLAN, PlanFailure, PlanSidecar, RefusedNode
from modelwright.gpus import Gpu
from modelwright.triton.layout import ABOUT
from modelwright.variants.techniques import tensorrt as technique
from tests.conftest import Recorder, Sandbox
from tests.variants.plan_double import A100, L4, TENSORRT, PlanBuilder, installed
from tests.variants.test_variants import with_variants

PLANNED = "{name: doubled_trt, steps: [tensorrt]}"


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlanBuilder]:
    """The double, and no TensorRT for RTX: what that finds is tested in tests/tensorrt."""
    monkeypatch.setattr(technique, "_CHECK_TOOLS", ("no-such-distribution",))
    with installed(PlanBuilder()) as double:
        yield double


def planned(options: str = "", more: str = "") -> str:
    return f"{{name: doubled_trt, steps: [{{tensorrt: {{{options}}}}}]{', ' * bool(more)}{more}}}"


def build(sandbox: Sandbox) -> Outcome:
    return sandbox.build("doubled_trt")["doubled_trt"]


def refused(sandbox: Sandbox) -> str:
    """The message of a build that publishes no plan."""
    result = sandbox.cli("build")
    assert result.exit_code == 1, result.output
    assert not any(name.startswith("doubled_trt/") for name in sandbox.published())
    return result.output


def test_a_plan_is_built_verified_and_published(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, PLANNED)
    outcome = build(sandbox)
    assert outcome.status == "new", outcome
    version = sandbox.repository.root / "doubled_trt" / "1"
    assert {path.name for path in version.iterdir()}.difference(ABOUT) == {"model.plan"}
    config = sandbox.config("doubled_trt")
    assert 'backend: "tensorrt"' in config
    assert "kind: KIND_GPU" in config
    assert "dims: [ 2 ]" in config
    manifest = sandbox.manifest("doubled_trt")
    assert manifest.metrics == {"accuracy": 1.0}
    assert manifest.made.tensorrt is not None
    assert manifest.made.tensorrt.version == TENSORRT
    assert manifest.made.tensorrt.gpu == L4.name
    assert manifest.made.tensorrt.profiles[0].inputs["x"].max == (8, 2)
    assert manifest.made.plans == {}
    assert manifest.verification.instruction_set == ""
    assert build(sandbox).status == "unchanged"
    assert len(builder.requests) == 1


def test_the_request_has_all_that_the_plan_depends_on(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(
        sandbox,
        planned(
            "workspace_mb: 64, builder_level: 4, sparsity: true, profiles: [{batch: 4}, {batch: {min: 1, opt: 2, max: 8}}]"
        ),
    )
    build(sandbox)
    (request,) = builder.requests
    assert (request.compute_capability, request.tensorrt) == ("8.9", TENSORRT)
    assert request.options.workspace_bytes == 64_000_000
    assert request.options.builder_level == 4
    assert request.options.sparsity
    first, second = (profile.inputs["x"] for profile in request.profiles)
    assert (first.min, first.opt, first.max) == ((4, 2), (4, 2), (4, 2))
    assert (second.min, second.opt, second.max) == ((1, 2), (2, 2), (8, 2))
    assert 'profile: [ "0", "1" ]' in " ".join(sandbox.config("doubled_trt").split())


def test_a_plan_for_each_of_several_gpus_is_in_one_version(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.gpus = (L4, A100)
    with_variants(sandbox, planned("compute_capabilities: ['8.0', '8.9']"))
    assert build(sandbox).status == "new"
    version = sandbox.repository.root / "doubled_trt" / "1"
    assert {path.name for path in version.glob("*.plan")} == {"model_8.0.plan", "model_8.9.plan"}
    config = " ".join(sandbox.config("doubled_trt").split())
    assert 'cc_model_filenames { key: "8.0", value: "model_8.0.plan" }' in config
    assert 'default_model_filename: "model_8.0.plan"' in config
    manifest = sandbox.manifest("doubled_trt")
    assert {file: plan.gpu for file, plan in manifest.made.plans.items()} == {
        "model_8.0.plan": A100.name,
        "model_8.9.plan": L4.name,
    }


def test_a_second_build_starts_from_the_measured_times_of_the_first(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, PLANNED)
    build(sandbox)
    with_variants(sandbox, planned("builder_level: 5"))
    build(sandbox)
    assert builder.caches == [False, True]


def test_a_changed_evaluate_that_asks_the_same_keeps_the_plan(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, PLANNED)
    build(sandbox)
    data = sandbox.root / "builders" / "doubled" / "data.py"
    data.write_text(data.read_text().replace("/ 10", "/ 20"))
    recorder = Recorder()
    sandbox.build("doubled_trt", listener=recorder)
    assert len(builder.requests) == 1
    assert ("doubled_trt", "verify") in recorder.ran
    assert ("doubled_trt", "tensorrt") not in recorder.ran


def test_answers_beyond_the_tolerance_are_not_published(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.errors = {"8.9": 0.5}
    with_variants(sandbox, PLANNED)
    outcome = build(sandbox)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert "doubled_trt: verify (plan for 8.9): 'y'" in outcome.error.message
    assert not (sandbox.repository.root / "doubled_trt").exists()


def test_each_of_several_plans_is_verified(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.gpus, builder.errors = (L4, A100), {"8.9": 0.5}
    with_variants(sandbox, planned("compute_capabilities: ['8.0', '8.9']"))
    outcome = build(sandbox)
    assert outcome.error is not None
    assert "doubled_trt: verify (plan for 8.9): 'y'" in outcome.error.message


def test_metrics_of_the_plan_are_held_to_its_gates(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.errors = {"8.9": 0.5}
    with_variants(sandbox, planned(more="gates: {tolerance: {atol: 1}, accuracy: {max_drop: 0.01}}"))
    outcome = build(sandbox)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert "accuracy" in outcome.error.message


def test_evaluate_that_asks_by_what_it_was_answered_is_named(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.errors = {"8.9": 1e-5}
    with_variants(sandbox, PLANNED)
    (sandbox.root / "builders" / "doubled" / "data.py").write_text(
        "import numpy as np\n\n\ndef samples():\n    return {'x': np.ones((2, 2), np.float32)}\n\n\n"
        "def evaluate(infer):\n    y = infer(samples())['y']\n    return {'accuracy': float(infer({'x': y})['y'].mean())}\n"
    )
    outcome = build(sandbox)
    assert outcome.error is not None
    assert "the plan was asked something else when it was built" in outcome.error.message


def other_plan(out: Path, said: PlanSidecar) -> PlanSidecar:
    (out / PLAN).write_bytes((out / PLAN).read_bytes() + b"x")
    return said


def other_header(out: Path, said: PlanSidecar) -> PlanSidecar:
    return said.model_copy(update={"tensorrt": "11.1.0.106"})


def web_page(out: Path, said: PlanSidecar) -> PlanSidecar:
    (out / PLAN).write_text("<html>404</html>")
    return said


def no_answer(out: Path, said: PlanSidecar) -> PlanSidecar:
    next((out / "answers").iterdir()).unlink()
    return said


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda out, said: None, "the plan builder stopped before it was done"),
        (other_plan, "model.plan is not what the builder made"),
        (other_header, "model.plan was built with TensorRT 11.0.0.114, its record says 11.1.0.106"),
        (web_page, "model.plan: it is "),
        (no_answer, "the plan answered "),
        (
            lambda out, said: said.model_copy(update={"compute_capability": "8.6", "gpu": "NVIDIA A10"}),
            "the plan was built on NVIDIA A10, of compute capability 8.6; asked for was 8.9",
        ),
        (lambda out, said: said.model_copy(update={"profiles": ()}), "the plan has other profiles than were asked for"),
    ],
    ids=[
        "died half-way",
        "damaged",
        "another TensorRT",
        "no plan",
        "not all answered",
        "another GPU",
        "other profiles",
    ],
)
def test_what_came_back_wrong_is_not_published(
    sandbox: Sandbox, builder: PlanBuilder, damage: Any, expected: str
) -> None:
    builder.damage = damage
    with_variants(sandbox, PLANNED)
    outcome = build(sandbox)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert expected in outcome.error.message
    assert "doubled_trt: tensorrt (local, 8.9)" in outcome.error.message
    assert not (sandbox.repository.root / "doubled_trt").exists()
    builder.damage = None
    assert build(sandbox).status == "new"


def test_a_refused_operator_is_named_with_its_layer(sandbox: Sandbox, builder: PlanBuilder) -> None:
    node = RefusedNode(name="double", operator="Mul", reason="UNSUPPORTED_NODE: false")
    builder.failure = PlanFailure(message="no", nodes=(node,))
    with_variants(sandbox, PLANNED)
    outcome = build(sandbox)
    assert outcome.error is not None
    assert "TensorRT does not take the operator Mul of the graph: node 'double' (Mul): UNSUPPORTED_NODE" in (
        outcome.error.message
    )
    assert "another way" in outcome.error.hint


def test_a_failure_of_the_builder_is_its_message(sandbox: Sandbox, builder: PlanBuilder) -> None:
    builder.failure = PlanFailure(message="the GPU has too little free memory", hint="nvidia-smi shows what uses it")
    with_variants(sandbox, PLANNED)
    outcome = build(sandbox)
    assert outcome.error is not None
    assert outcome.error.message.endswith("the GPU has too little free memory")
    assert outcome.error.hint == "nvidia-smi shows what uses it"


def test_samples_that_no_profile_takes_are_found_before_the_build(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, planned("profiles: [{batch: {min: 2, opt: 2, max: 4}}]"))
    outcome = build(sandbox)
    assert outcome.error is not None
    assert "no profile takes a request of x [1, 2]: x [2, 2] to [4, 2]" in outcome.error.message
    assert builder.requests == []


def test_plan_says_where_the_plan_is_built(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, PLANNED)
    lines = sandbox.cli("plan", "doubled_trt").output.splitlines()
    (line,) = [line for line in lines if "doubled_trt tensorrt:" in line]
    assert line.endswith("; local: the tests' double")
    build(sandbox)
    assert "the tests' double" not in sandbox.cli("plan", "doubled_trt").output


# --- without a place ---------------------------------------------------------------------------------------------------


def test_without_a_place_the_variant_is_skipped_with_the_reason(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, planned("compute_capabilities: ['9.0']"))
    outcomes = sandbox.build()
    assert outcomes["doubled"].status == "new"
    assert outcomes["doubled_trt"].status == "skipped"
    assert outcomes["doubled_trt"].reason == (
        "not built (local: there is no GPU of 9.0); not checked without a GPU either, for which"
        " 'modelwright[tensorrt-check]' is not installed"
    )
    assert not (sandbox.repository.root / "doubled_trt").exists()


def test_what_was_published_stays_where_no_place_is_any_more(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, PLANNED)
    build(sandbox)
    builder.gpus = (Gpu(0, "NVIDIA T4", "7.5"),)
    with_variants(sandbox, planned("compute_capabilities: ['8.9']"))
    assert build(sandbox).status == "skipped"
    assert (sandbox.repository.root / "doubled_trt" / "1" / "model.plan").is_file()


def test_the_project_can_say_that_plans_are_not_built(sandbox: Sandbox, builder: PlanBuilder) -> None:
    config = sandbox.root / "modelwright.toml"
    config.write_text(config.read_text() + '\n[tensorrt]\nplan_builder = "none"\n')
    with_variants(sandbox, PLANNED)
    outcome = build(sandbox)
    assert outcome.status == "skipped"
    assert "plan builder: none was chosen" in outcome.reason


# --- model.yaml that cannot be built ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (planned("precision: fp16"), "write steps: [fp16, tensorrt]"),
        (planned("precision: int8"), "write steps: [quantise, tensorrt]"),
        (
            "{name: doubled_trt, steps: [quantise, tensorrt], gates: {accuracy: {max_drop: 1}}}",
            "quantise makes INT8 that TensorRT does not take, by activations: asymmetric",
        ),
        (
            "{name: doubled_trt, steps: [{quantise: {mode: dynamic}}, tensorrt], gates: {accuracy: {max_drop: 1}}}",
            "quantise makes INT8 that TensorRT does not take, by mode: dynamic",
        ),
        (planned("compute_capabilities: [sm_89]"), "'sm_89' is not a compute capability"),
        (planned("compute_capabilities: ['8.9', '8.9']"), "one stands there twice"),
        (
            planned("hardware_compatibility: ampere_plus, compute_capabilities: ['7.5']"),
            "ampere_plus begins at 8.0, and 7.5 is older",
        ),
        (planned("builder_level: 6"), "builder_level"),
        (planned("workspace_mb: 0"), "workspace_mb"),
        (planned("profiles: [{batch: {min: 4, opt: 2, max: 8}}]"), "min ≤ opt ≤ max is needed, got 4, 2, 8"),
        (planned("profiles: [{batch: {min: 1, opt: 2, max: 16}}]"), "max is 16, and serving.max_batch_size 8"),
        (planned("profiles: [{dims: {sequence: 3}}]"), "'sequence' is not the name of a dimension"),
        (planned("profiles: [{inputs: {z: [2]}}]"), "the model has no input 'z'"),
        (planned("profiles: [{inputs: {x: [3]}}]"), "this dimension is always 2"),
        (planned("profiles: [{inputs: {x: [2, 2]}}]"), "2 dimensions, and the input has 1, batch left out"),
        (planned("profil: []"), "profil"),
        (planned(more="serving: {instance_group: [{kind: KIND_CPU}]}"), "KIND_CPU, and a plan runs on a GPU"),
        (
            planned(more="serving: {instance_group: [{profile: ['1']}]}"),
            "there is no profile '1'",
        ),
        (planned(more="serving: {default_model_filename: a.plan}"), "it follows from tensorrt.compute_capabilities"),
        (planned(more="gates: {latency: {max_ratio: 0.5}}"), "gates.latency is measured in onnxruntime"),
    ],
    ids=lambda value: value[:60],
)
def test_options_that_cannot_work_are_refused(
    sandbox: Sandbox, builder: PlanBuilder, variant: str, expected: str
) -> None:
    with_variants(sandbox, variant)
    output = refused(sandbox)
    assert expected in " ".join(output.split())
    assert "builders/doubled/model.yaml" in output
    assert builder.requests == []


def test_a_dynamic_dimension_needs_a_range(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, PLANNED)
    path = sandbox.root / "builders" / "doubled" / "model.yaml"
    tensors = "inputs: [{name: x, dtype: FP32, shape: [width]}]\noutputs: [{name: y, dtype: FP32, shape: [width]}]\n"
    path.write_text(path.read_text().replace("serving:", f"{tensors}serving:"))
    _with_open_width(sandbox)
    output = " ".join(refused(sandbox).split())
    assert "'width' (of x) is dynamic, and a plan takes only the sizes that it was built for" in output
    assert "profiles: [{dims: {width: {min: 1, opt: 64, max: 256}}}]" in output


def test_a_dynamic_dimension_takes_its_range_by_name(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, planned("profiles: [{dims: {width: {min: 1, opt: 2, max: 9}}}]"))
    _with_open_width(sandbox)
    outcome = build(sandbox)
    assert outcome.status == "new", outcome
    assert builder.requests[0].profiles[0].inputs["x"].max == (8, 9)
    assert "dims: [ -1 ]" in sandbox.config("doubled_trt")


def _with_open_width(sandbox: Sandbox) -> None:
    import onnx

    path = sandbox.root / "builders" / "doubled" / "model.onnx"
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_param = "width"
    model.graph.initializer[0].dims[:] = [1]
    onnx.save(model, str(path))


def test_the_manifest_keeps_what_the_builder_said(sandbox: Sandbox, builder: PlanBuilder) -> None:
    with_variants(sandbox, PLANNED)
    build(sandbox)
    data = json.loads((sandbox.repository.root / "doubled_trt" / "1" / "manifest.json").read_text())
    kept = data["made"]["tensorrt"]
    assert kept["layers_by_type"] == {"FP32": 3}
    assert kept["place"] == "local"
    assert kept["profiles"][0]["inputs"]["x"] == {"min": [1, 2], "opt": [8, 2], "max": [8, 2]}
