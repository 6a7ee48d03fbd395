"""What a build is about to publish is linted first: published is clean."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ENSEMBLE_YAML, ONNX_YAML, Sandbox

TOO_LARGE = ONNX_YAML.replace(
    "{max_batch_size: 8}", "{max_batch_size: 8, dynamic_batching: {preferred_batch_size: [9]}}"
)
SKIPPED = "{max_batch_size: 8, instance_group: [{count: 1, kind: KIND_CPU, rate_limiter: {priority: 2}}]}"
TRAP = ONNX_YAML.replace("{max_batch_size: 8}", SKIPPED)


def test_a_model_that_the_server_would_refuse_is_not_published(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=TOO_LARGE)
    message = sandbox.error("build")
    assert "doubled: lint: 1 error, so it is not published" in message
    assert "MW301: preferred_batch_size 9 is above max_batch_size 8" in message
    assert "| " in message
    assert "preferred_batch_size: [9]" in message.replace("[ 9 ]", "[9]")
    assert "hint: config.pbtxt is made from `serving` in model.yaml" in message
    assert sandbox.published() == {}


def test_a_config_that_the_server_would_refuse_does_not_replace_a_good_one(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    before = sandbox.published()
    (folder / "model.yaml").write_text(TOO_LARGE)
    assert "MW301" in sandbox.error("build")
    assert sandbox.published() == before


def test_no_version_number_is_lost_to_a_refusal(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=TOO_LARGE)
    sandbox.error("build")
    (folder / "model.yaml").write_text(ONNX_YAML)
    assert sandbox.build()["doubled"].version == 1


@pytest.mark.server
def test_an_ensemble_that_runs_a_refused_model_is_not_published(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=TOO_LARGE)
    sandbox.python_builder()
    sandbox.ensemble_builder()
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "doubled": "failed",
        "plus_one": "new",
        "both": "failed",
    }
    assert "MW708" in str(outcomes["both"].error)
    assert {name.partition("/")[0] for name in sandbox.published()} == {"plus_one"}


def test_other_models_go_out(sandbox: Sandbox) -> None:
    sandbox.onnx_builder("bad", yaml=TOO_LARGE)
    sandbox.onnx_builder("good")
    assert {name: item.status for name, item in sandbox.build().items()} == {"bad": "failed", "good": "new"}


def test_a_trap_is_published_with_a_warning(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=TRAP)
    result = sandbox.cli("build")
    assert result.exit_code == 0
    assert "Warning: doubled/config.pbtxt:" in result.output
    assert "MW902: " in result.output
    assert "--rate-limit=execution_count" in result.output
    assert json.loads(sandbox.cli("build", "--json").stdout)["models"][0]["warnings"] == []  # nothing is published anew


@pytest.mark.parametrize(("yaml", "rule"), [(TRAP, "MW902"), (TOO_LARGE, "MW301")], ids=["warning", "error"])
def test_the_projects_ignores_hold(sandbox: Sandbox, yaml: str, rule: str) -> None:
    sandbox.onnx_builder(yaml=yaml)
    file = sandbox.root / "modelwright.toml"
    file.write_text(f'{file.read_text()}\n[[lint.ignore]]\nrule = "{rule}"\nreason = "a test"\n')
    result = sandbox.cli("build")
    assert result.exit_code == 0
    assert "Warning" not in result.output


def test_faults_of_models_that_do_not_change_stop_nobody(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    (sandbox.root / "model_repository/strange").mkdir()
    sandbox.onnx_builder("second")
    assert sandbox.build()["second"].status == "new"


@pytest.mark.server
def test_what_is_published_is_clean(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(
        yaml=ONNX_YAML.replace("{max_batch_size: 8}", "{max_batch_size: 8, model_warmup: [{name: w}]}")
    )
    sandbox.python_builder()
    sandbox.ensemble_builder(yaml=ENSEMBLE_YAML)
    assert {item.status for item in sandbox.build().values()} == {"new"}
    result = sandbox.cli("lint")
    assert (result.exit_code, result.output) == (0, "clean: 3 models for Triton 26.07\n")
