"""serving.environments: merged, checked, published beside config.pbtxt, removed again, and served."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelwright.config.environments import check_serving, environments_of
from modelwright.errors import ConfigError
from modelwright.project.merge import merge
from modelwright.triton.client import connect
from modelwright.triton.releases import release
from tests.config.test_config import builder
from tests.conftest import ONNX_YAML, Sandbox, default_sigint
from tests.ports import free_ports
from tests.waiting import PATIENCE_S

BOTH = "environments: {cpu: {instance_group: [{count: 2, kind: KIND_CPU}]}, gpu: {instance_group: [{kind: KIND_GPU}]}}"
YAML = ONNX_YAML.replace("max_batch_size: 8", f"max_batch_size: 8, {BOTH}")


@pytest.mark.parametrize(
    ("base", "patch", "merged"),
    [
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": 1}, {"a": {"b": 2, "c": None}}, {"a": {"b": 2}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({}, {"a": None}, {}),
        ({"a": {}}, {}, {"a": {}}),
    ],
    ids=[
        "below",
        "a list",
        "null",
        "null below",
        "a mapping for a number",
        "a number for a mapping",
        "no key",
        "nothing",
    ],
)
def test_an_environment_is_merged_over_the_base(base: dict[str, Any], patch: dict[str, Any], merged: Any) -> None:
    before = repr(base)
    assert merge(base, patch) == merged
    assert repr(base) == before


def test_an_environment_has_the_whole_serving() -> None:
    base = {"max_batch_size": 8, "dynamic_batching": {"priority_levels": 2, "default_priority_level": 1}}
    given = {"cpu": {"dynamic_batching": {"priority_levels": 3}}, "same": None}
    assert environments_of(builder({**base, "environments": given})) == {
        "cpu": {"max_batch_size": 8, "dynamic_batching": {"priority_levels": 3, "default_priority_level": 1}},
        "same": base,
    }


BAD: dict[str, tuple[Any, str]] = {
    "no mapping": (["cpu"], "serving.environments: expected a mapping, got ['cpu']"),
    "no fields": ({"cpu": 5}, "serving.environments.cpu: expected fields, got 5"),
    "one inside another": ({"cpu": {"environments": {}}}, "environments.cpu: an environment cannot have environments"),
    "a path": ({"../cpu": {}}, "environments: '../cpu' cannot be the name"),
    "a folder": ({"a/b": {}}, "environments: 'a/b' cannot be the name"),
    "a hidden name": ({".cpu": {}}, "environments: '.cpu' cannot be the name"),
    "an empty name": ({"": {}}, "environments: '' cannot be the name"),
    "a line break": ({"cpu\n": {}}, "cannot be the name"),
    "an unknown field": ({"cpu": {"instance_grp": []}}, "serving.environments.cpu.instance_grp: unknown field"),
    "a derived field": (
        {"cpu": {"backend": "python"}},
        "serving.environments.cpu.backend: it follows from source.kind",
    ),
    "another batch size": ({"cpu": {"max_batch_size": 4}}, "environments.cpu.max_batch_size: 4 here, 8 in serving"),
    "no batch size": ({"cpu": {"max_batch_size": None}}, "environments.cpu.max_batch_size: 0 here, 8 in serving"),
    "other tensors": (
        {"cpu": {"input": [{"name": "x", "reshape": {"shape": [2, 1]}}]}},
        "serving.environments.cpu.input[0]: added, got",
    ),
    "other responses": (
        {"cpu": {"model_transaction_policy": {"decoupled": True}}},
        "environments.cpu.model_transaction_policy: added",
    ),
    "two schedulers": (
        {"cpu": {"sequence_batching": {}}},
        "serving.environments.cpu: dynamic_batching and sequence_batching exclude each other",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_an_environment(case: str) -> None:
    given, message = BAD[case]
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        check_serving(builder({"max_batch_size": 8, "dynamic_batching": {}, "environments": given}), release("26.07"))
    assert str(caught.value).startswith("builders/m/model.yaml: ")


def test_another_scheduler_takes_a_null() -> None:
    given: dict[str, Any] = {"cpu": {"dynamic_batching": None, "sequence_batching": {}}}
    check_serving(builder({"max_batch_size": 8, "dynamic_batching": {}, "environments": given}), release("26.07"))


def test_a_release_that_reads_one_config_only() -> None:
    serving: dict[str, Any] = {"environments": {"cpu": {}}}
    check_serving(builder(serving), release("24.06"))
    with pytest.raises(ConfigError, match=r"Triton 24\.05 .*config\.pbtxt\n  hint: .*24\.06"):
        check_serving(builder(serving), release("24.05"))
    check_serving(builder({}), release("24.05"))


def files(sandbox: Sandbox) -> set[str]:
    """What lies beside the versions of `doubled`."""
    names = (name.removeprefix("doubled/") for name in sandbox.published())
    return {name for name in names if not name.startswith("1/")}


def test_each_environment_gets_a_config(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=YAML)
    assert sandbox.build()["doubled"].status == "new"
    assert files(sandbox) == {"config.pbtxt", "configs/cpu.pbtxt", "configs/gpu.pbtxt"}
    model = sandbox.root / "model_repository/doubled"
    assert "KIND" not in (model / "config.pbtxt").read_text()
    cpu = (model / "configs/cpu.pbtxt").read_text()
    assert cpu.startswith("# Made by modelwright from builders/doubled/model.yaml for cpu: change")
    assert "  { count: 2, kind: KIND_CPU }\n" in cpu
    assert "max_batch_size: 8\n" in cpu
    before = sandbox.published()
    assert sandbox.build()["doubled"].status == "unchanged"
    assert sandbox.published() == before


def test_a_change_of_one_environment_replaces_its_file_alone(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=YAML)
    sandbox.build()
    before = sandbox.published()
    (folder / "model.yaml").write_text(YAML.replace("count: 2", "count: 3"))
    outcome = sandbox.build()["doubled"]
    assert (outcome.status, outcome.version) == ("config", 1)
    after = sandbox.published()
    assert {name for name in after if after[name] != before[name]} == {"doubled/configs/cpu.pbtxt"}


def test_an_environment_that_nobody_asks_for_any_more_goes(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=YAML)
    sandbox.build()
    (folder / "model.yaml").write_text(YAML.replace("cpu: {instance_group: [{count: 2, kind: KIND_CPU}]}, ", ""))
    assert sandbox.build()["doubled"].status == "config"
    assert files(sandbox) == {"config.pbtxt", "configs/gpu.pbtxt"}
    (folder / "model.yaml").write_text(ONNX_YAML)
    sandbox.build()
    assert files(sandbox) == {"config.pbtxt"}
    assert not (sandbox.root / "model_repository/doubled/configs").exists()
    assert sandbox.build()["doubled"].status == "unchanged"


@pytest.mark.parametrize("forgotten", ["nothing", "the cache", "the record"])
def test_only_what_was_written_here_is_removed(sandbox: Sandbox, forgotten: str) -> None:
    folder = sandbox.onnx_builder(yaml=YAML)
    sandbox.build()
    model = sandbox.root / "model_repository/doubled"
    (model / "configs/mine.pbtxt").write_text("# mine")
    (model / "warmup").mkdir()
    (model / "warmup/golden-x").write_text("mine")
    if forgotten == "the cache":
        (sandbox.root / ".modelwright/cache/configs.json").unlink()
    elif forgotten == "the record":
        (model / "config.pbtxt").write_text("# edited by hand")
    (folder / "model.yaml").write_text(ONNX_YAML)
    sandbox.build()
    assert files(sandbox) == {"config.pbtxt", "configs/mine.pbtxt", "warmup/golden-x"}


def test_a_record_that_names_other_files_removes_none_of_them(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    model = sandbox.root / "model_repository/doubled"
    (sandbox.root / "model_repository/other").write_text("x")
    names = '["1/model.onnx", "../other", "/etc/passwd", "config.pbtxt", "./1/model.onnx", "1", 5, "", "gone"]'
    (model / "config.pbtxt").write_text(f"# Made with it: {names}\n")
    (folder / "model.yaml").write_text(YAML)
    sandbox.build()
    assert files(sandbox) == {"config.pbtxt", "configs/cpu.pbtxt", "configs/gpu.pbtxt"} | {"other"}
    assert sandbox.repository.damage("doubled", 1) == []


def test_a_config_that_was_edited_by_hand_is_put_right(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=YAML)
    sandbox.build()
    before = sandbox.published()
    (sandbox.root / "model_repository/doubled/configs/cpu.pbtxt").write_text("# mine")
    (sandbox.root / "model_repository/doubled/configs/gpu.pbtxt").unlink()
    assert sandbox.build()["doubled"].status == "config"
    assert sandbox.published() == before


def test_a_folder_that_is_a_link_is_not_written_through(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = sandbox.onnx_builder()
    sandbox.build()
    (tmp_path / "elsewhere").mkdir()
    (sandbox.root / "model_repository/doubled/configs").symlink_to(tmp_path / "elsewhere")
    (folder / "model.yaml").write_text(YAML)
    assert "doubled/configs: is a link, and configs/cpu.pbtxt belongs in it" in sandbox.error()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_environment_uses_the_builders_own_template(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=YAML)
    template = '{% extends "project/config.pbtxt.j2" %}{% block head %}# {{ environment or "base" }}{% endblock %}'
    (folder / "config.pbtxt.j2").write_text(template)
    sandbox.build()
    model = sandbox.root / "model_repository/doubled"
    names = ("config.pbtxt", "configs/cpu.pbtxt", "configs/gpu.pbtxt")
    assert [(model / name).read_text().split("\n")[0] for name in names] == ["# base", "# cpu", "# gpu"]


def test_an_old_target_is_refused_before_anything_runs(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=YAML)
    (sandbox.root / "modelwright.toml").write_text('triton = "24.05"\n')
    assert "serving.environments: Triton 24.05 only reads config.pbtxt" in sandbox.error()


# --- on the real server -----------------------------------------------------------------------------------------------


def test_an_environment_that_no_model_has_is_an_error(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=YAML)
    sandbox.build()
    error = sandbox.error("serve", "--environment", "cpus")
    assert "no model in model_repository has a config for the environment 'cpus'\n  hint: did you mean 'cpu'?" in error


def test_an_environment_where_no_model_has_any(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    assert "hint: write one under serving.environments in a model.yaml" in sandbox.error(
        "serve", "--environment", "cpu"
    )


@pytest.mark.server
def test_serve_with_an_environment(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=YAML.replace("count: 2", "count: 3"))
    sandbox.onnx_builder("plain")
    sandbox.build()
    http, grpc, metrics = free_ports(3)
    ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    command = [
        sys.executable,
        "-m",
        "modelwright.cli.main",
        "--project",
        str(sandbox.root),
        "serve",
        "--environment",
        "cpu",
    ]
    with subprocess.Popen(
        [*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=default_sigint
    ) as process:
        assert process.stdout is not None
        try:
            lines = []
            for line in process.stdout:
                lines.append(line.strip())
                if "Ctrl-C" in line:
                    break
            with connect(f"http://127.0.0.1:{http}") as client:
                groups = {name: client.config(name)["instance_group"][0] for name in ("doubled", "plain")}
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE_S)
    assert "environment cpu: doubled; any other model: its config.pbtxt" in lines
    assert (groups["doubled"]["count"], groups["plain"]["count"]) == (3, 2)  # 2: the server's own default


@pytest.mark.server
def test_replay_stays_with_the_base(sandbox: Sandbox) -> None:
    sandbox.onnx_builder(yaml=YAML.replace("count: 2, kind: KIND_CPU", "kind: KIND_GPU"))  # no GPU here
    result = sandbox.cli("build", "--replay")
    assert result.exit_code == 0, result.output
    assert "HTTP ok, gRPC ok" in result.output
