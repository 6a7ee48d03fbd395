"""The ONNX file that the server's onnxruntime runs through TensorRT: only its config differs."""

from __future__ import annotations

import pytest

from modelwright.lint.engine import lint
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from tests.conftest import Sandbox
from tests.variants.test_variants import with_variants


def variant(options: str = "", more: str = "") -> str:
    return f"{{name: doubled_ort_trt, steps: [{{ort_tensorrt: {{{options}}}}}]{', ' * bool(more)}{more}}}"


def config_of(sandbox: Sandbox, options: str = "", more: str = "") -> str:
    with_variants(sandbox, variant(options, more))
    outcome = sandbox.build("doubled_ort_trt")["doubled_ort_trt"]
    assert outcome.status == "new", outcome
    return " ".join(sandbox.config("doubled_ort_trt").split())


def test_the_model_is_the_onnx_file_with_another_config(sandbox: Sandbox) -> None:
    config = config_of(sandbox, "precision: fp16, workspace_mb: 512, builder_level: 3, engine_cache: /engines")
    sandbox.build("doubled")
    assert 'backend: "onnxruntime"' in config
    assert 'name: "tensorrt"' in config
    assert "kind: KIND_GPU" in config
    for name, value in {
        "precision_mode": "FP16",
        "max_workspace_size_bytes": "512000000",
        "trt_builder_optimization_level": "3",
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": "/engines",
    }.items():
        assert f'key: "{name}"' in config
        assert f'value: "{value}"' in config
    root = sandbox.repository.root
    one, other = (root / name / "1" / "model.onnx" for name in ("doubled", "doubled_ort_trt"))
    assert one.read_bytes() == other.read_bytes()
    report = lint(RepositoryTree.read(root), Options(sandbox.project.target))
    assert report.findings == ()


def test_the_manifest_says_that_tensorrt_was_not_run(sandbox: Sandbox) -> None:
    config_of(sandbox)
    (note,) = sandbox.manifest("doubled_ort_trt").verification.notes
    assert "TensorRT, which runs the model in the server, was not run" in note


def test_other_parameters_of_the_backend_are_passed_on(sandbox: Sandbox) -> None:
    config = config_of(sandbox, "parameters: {trt_min_subgraph_size: '3'}", "serving: {instance_group: [{count: 2}]}")
    assert 'key: "trt_min_subgraph_size", value: "3"' in config
    assert "count: 2" in config
    assert "kind: KIND_GPU" in config


def test_a_change_of_parameters_is_a_change_of_config_alone(sandbox: Sandbox) -> None:
    config_of(sandbox)
    with_variants(sandbox, variant("builder_level: 5"))
    assert sandbox.build("doubled_ort_trt")["doubled_ort_trt"].status == "config"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            variant("parameters: {trt_min_subgraph: '3'}"),
            "has no 'trt_min_subgraph': did you mean 'trt_min_subgraph_size'",
        ),
        (variant("parameters: {precision_mode: FP16}"), "precision_mode is set by another option of ort_tensorrt"),
        (variant("precision: int8"), "precision"),
        (variant(more="serving: {instance_group: [{kind: KIND_CPU}]}"), "only instances on a GPU use TensorRT"),
        (
            variant(
                more="serving: {optimization: {execution_accelerators: {gpu_execution_accelerator: [{name: tensorrt}]}}}"
            ),
            "'tensorrt' follows from steps: [ort_tensorrt]",
        ),
    ],
    ids=["unknown", "twice", "precision", "CPU", "in serving, too"],
)
def test_what_the_backend_would_refuse_is_refused(sandbox: Sandbox, given: str, expected: str) -> None:
    with_variants(sandbox, given)
    result = sandbox.cli("build")
    assert result.exit_code == 1
    assert expected in " ".join(result.output.split())
    assert not any(name.startswith("doubled_ort_trt/") for name in sandbox.published())


@pytest.mark.server
def test_a_server_without_a_gpu_says_that_it_lacks_one(sandbox: Sandbox) -> None:
    """A replay here is no proof of the model, and no failure either."""
    config_of(sandbox)
    result = sandbox.cli("verify", "doubled_ort_trt")
    assert "not served here" in result.output, result.output
    assert "GPU" in result.output
