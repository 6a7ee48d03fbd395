"""Golden replay and the commands around a server, on the real tritonserver."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from modelwright import tools
from modelwright.api import Project
from modelwright.digest import sha256_file
from modelwright.errors import ServerError
from modelwright.operations import replay
from modelwright.operations.infer import infer
from modelwright.repository import policy
from modelwright.server.environment import ensure
from modelwright.server.local import RunningServer, running
from modelwright.triton.client import connect
from modelwright.triton.tensors import load_tensors, save_tensors
from tests.conftest import (
    ONNX_YAML,
    PYTHON_MODEL_PY,
    PYTHON_YAML,
    Sandbox,
    default_sigint,
    doubling_onnx,
    new_sandbox,
)
from tests.ports import free_ports
from tests.server.models import graph, node
from tests.variants import int8_graphs as graphs
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def built(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    """doubled 1 and 2, plus_one 1, both 1 and 2: the ensemble's version 1 was verified with doubled 1."""
    sandbox = sandbox_factory()
    folder = sandbox.onnx_builder()
    sandbox.python_builder()
    sandbox.ensemble_builder()
    sandbox.build()
    doubling_onnx(folder / "model.onnx", 2.001)
    sandbox.build()
    with mock.patch.object(policy, "SETTLE_S", 0):  # as a minute later
        sandbox.build()
    return sandbox


@pytest.fixture(scope="module")
def server(built: Sandbox) -> Iterator[RunningServer]:
    """What `serve` runs: the newest version of each model."""
    environment = ensure(built.project.server, built.project.target, lambda text: None)
    log = built.root / "server.log"
    with running(environment, built.project.repository, log=log, models=["*"], stop_grace_s=0) as server:
        yield server


def test_every_version_is_replayed_over_both_protocols(built: Sandbox) -> None:
    result = built.cli("verify", "--json")
    assert result.exit_code == 0, result.output
    verdicts = {(row["model"], row["version"], row["url"][:4]): row["verdict"] for row in json.loads(result.stdout)}
    assert verdicts == {
        ("both", 1, "http"): "superseded",
        ("both", 1, "grpc"): "superseded",
        **{
            (model, version, protocol): "ok"
            for model, version in (("both", 2), ("doubled", 1), ("doubled", 2), ("plus_one", 1))
            for protocol in ("http", "grpc")
        },
    }


def test_a_version_with_other_tensors_does_not_keep_the_newest_from_being_checked(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(
        yaml="source: {kind: onnx, path: model.onnx}\nsamples: data:samples\nserving: {max_batch_size: 8}\n"
    )
    sandbox.build()
    wider = graph(
        [node("Concat", ["x", "x"], ["y"], axis=1)],
        [("x", "TYPE_FP32", ["batch", 2])],
        [("y", "TYPE_FP32", ["batch", 4])],
    )
    (folder / "model.onnx").write_bytes(wider.SerializeToString())
    result = sandbox.cli("build", "--replay", "--json")
    assert result.exit_code == 0, result.output
    verdicts = {(row["version"], row["verdict"], row["detail"]) for row in json.loads(result.stdout)["replay"]}
    assert verdicts == {(1, "superseded", "the config has other tensors now"), (2, "ok", "")}


def test_a_table_for_people(built: Sandbox, server: RunningServer) -> None:
    result = built.cli("verify", "doubled", "--url", f"grpc://{server.grpc}")
    assert result.exit_code == 0
    lines = [re.sub(r" +", " ", line) for line in result.stdout.splitlines()]
    assert lines[0] == "model version server replay max error"
    assert lines[1] == f"doubled 1 grpc://{server.grpc} not served -"
    assert lines[2] == f"doubled 2 grpc://{server.grpc} ok 0.0e+00"


def test_exact_fails_for_what_the_server_serves_and_the_repository_lacks(
    built: Sandbox, server: RunningServer, tmp_path: Path
) -> None:
    lacking = tmp_path / "model_repository"
    shutil.copytree(built.project.repository, lacking)
    shutil.rmtree(lacking / "plus_one")
    shutil.rmtree(lacking / "doubled/2")
    project = replace(built.project, repository=lacking)
    url = f"http://{server.http}"
    assert {row.verdict for row in replay.verify(project, urls=[url], say=print)} <= {"superseded", "not served"}
    found = replay.verify(project, urls=[url], exact=True, say=print)
    assert [(row.model, row.version, row.detail) for row in found if row.verdict == "failed"] == [
        ("doubled", 2, f"the server serves it, and {lacking} has no such version, but 1"),
        ("plus_one", 1, f"the server serves it, and {lacking} has no such model"),
    ]
    named = replay.verify(project, ["both"], [url], exact=True, say=print)
    assert [row for row in named if row.verdict == "failed"] == []


def test_a_server_that_answers_differently_fails(built: Sandbox, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(built.project.repository, other)
    doubling_onnx(other / "doubled/2/model.onnx", 2.5)
    environment = ensure(built.project.server, built.project.target, lambda text: None)
    with running(environment, other, log=tmp_path / "log", models=["*"], stop_grace_s=0) as wrong:
        result = built.cli("verify", "doubled", "--url", f"http://{wrong.http}")
    assert result.exit_code == 1
    assert "'y' differs by " in result.stdout


def test_a_file_changed_on_disk_fails(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    doubling_onnx(sandbox.root / "model_repository/doubled/1/model.onnx", 2.0005)
    result = sandbox.cli("verify")
    assert result.exit_code == 1
    assert "on disk: model.onnx changed" in result.stdout


def test_a_model_that_does_not_load_fails_with_the_servers_reason(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.build()
    config = sandbox.root / "model_repository/doubled/config.pbtxt"  # edited by hand: a build would not publish it
    config.write_text(config.read_text() + "dynamic_batching { preferred_batch_size: [ 9 ] }\n")
    result = sandbox.cli("verify")
    assert result.exit_code == 1
    assert "dynamic batching preferred size must be <= max batch size" in result.stdout


def test_no_server_at_the_url(built: Sandbox) -> None:
    result = built.cli("verify", "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9" in result.output
    assert "hint:" in result.output


def test_an_unknown_model(built: Sandbox) -> None:
    result = built.cli("verify", "doubed")
    assert result.exit_code == 1
    assert "doubed: is not in model_repository\n  hint: did you mean 'doubled'?" in result.output


def test_nothing_published(sandbox: Sandbox) -> None:
    result = sandbox.cli("verify")
    assert result.exit_code == 1
    assert "nothing is published yet\n  hint: build first: modelwright build" in result.output


def test_build_replay_remembers_what_passed(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    first = sandbox.cli("build", "--replay")
    assert first.exit_code == 0, first.output
    assert "HTTP ok, gRPC ok" in first.output
    second = sandbox.cli("build", "--replay")
    assert second.stdout.startswith("Nothing to do: 1 model up to date in model_repository.")
    doubling_onnx(folder / "model.onnx", 2.001)
    assert "HTTP ok, gRPC ok" in sandbox.cli("build", "--replay").output


def replayed(sandbox: Sandbox, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code of a build with --replay, and {model/version: its verdicts} of what it replayed."""
    result = sandbox.cli("build", *arguments, "--replay", "--json")
    verdicts: dict[str, list[str]] = {}
    for row in json.loads(result.stdout)["replay"] or ():
        verdicts.setdefault(f"{row['model']}/{row['version']}", []).append(row["verdict"])
    return result.exit_code, verdicts


def loaded(sandbox: Sandbox) -> set[str]:
    """The models that the server of the last replay loaded."""
    log = (sandbox.root / ".modelwright/logs/replay.log").read_text()
    return set(re.findall(r"successfully loaded '(\w+)'", log))


def test_a_replay_is_of_what_was_named_or_changed_and_what_runs_it(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder()
    sandbox.onnx_builder("other")
    sandbox.onnx_builder("more")
    sandbox.python_builder()
    sandbox.ensemble_builder()
    ok = ["ok", "ok"]
    assert replayed(sandbox, "doubled") == (0, dict.fromkeys(("doubled/1", "plus_one/1", "both/1"), ok))
    assert loaded(sandbox) == {"doubled", "plus_one", "both"}
    assert replayed(sandbox, "doubled") == (0, {})
    sandbox.build()
    assert replayed(sandbox, "other") == (0, {"other/1": ok})
    assert loaded(sandbox) == {"other"}
    assert replayed(sandbox) == (0, {"more/1": ok})
    doubling_onnx(folder / "model.onnx", 2.001)
    result = sandbox.cli("build", "--replay")
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    assert lines["doubled"].endswith("HTTP ok, gRPC ok")
    assert lines["both"].endswith("HTTP ok, gRPC ok")
    assert lines["plus_one"].endswith("passed before")
    assert lines["more"].endswith("passed before")
    assert loaded(sandbox) == {"doubled", "plus_one", "both"}
    assert replayed(sandbox) == (0, {})


def test_what_failed_is_replayed_again_and_nothing_else(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.onnx_builder("other", factor=2.0001)
    sandbox.build()
    published = sandbox.root / "model_repository/doubled/1/model.onnx"
    right = published.read_bytes()
    doubling_onnx(published, 2.0005)
    assert replayed(sandbox) == (1, {"doubled/1": ["failed", "failed"], "other/1": ["ok", "ok"]})
    assert replayed(sandbox) == (1, {"doubled/1": ["failed", "failed"]})
    published.write_bytes(right)
    assert replayed(sandbox) == (0, {"doubled/1": ["ok", "ok"]})


def test_one_version_that_cannot_be_read_hides_no_other(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.onnx_builder("other")
    (sandbox.onnx_builder("faulty") / "model.yaml").write_text("source: {")
    sandbox.build()
    (sandbox.root / "model_repository/doubled/1/manifest.json").write_text("{")
    result = sandbox.cli("verify", "--json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)
    assert {(row["model"], row["verdict"]) for row in rows} == {("other", "ok"), ("doubled", "failed")}
    (row,) = (row for row in rows if row["model"] == "doubled")
    assert row["url"] == ""
    assert row["detail"].startswith("on disk: ")
    assert "doubled/1/manifest.json: damaged: not JSON, or cut short" in row["detail"]
    code, verdicts = replayed(sandbox)
    assert (code, verdicts) == (1, {"doubled/1": ["failed"], "other/1": ["ok", "ok"]})
    with Project.find(sandbox.root).serve() as served:
        assert served.ready() == [("doubled", 1), ("other", 1)]


def test_one_config_that_cannot_be_read_hides_no_other_model(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    sandbox.onnx_builder("other")
    sandbox.build()
    (sandbox.root / "model_repository/doubled/config.pbtxt").write_text("max_batch_size: {")
    with Project.find(sandbox.root).serve() as served:
        assert served.ready() == [("other", 1)]
        assert "config.pbtxt" in served.refused["doubled"]
        results = Project.find(sandbox.root).verify(urls=served.http)
    assert {result.model: result.verdict for result in results} == {"doubled": "failed", "other": "ok"}
    assert next(result.detail for result in results if result.model == "doubled").startswith("on disk: ")


def test_infer_sends_a_sample(built: Sandbox, server: RunningServer) -> None:
    result = built.cli("infer", "both", "--url", f"http://{server.http}", "--sample", "1")
    assert result.output == "both y: float32 [1, 2] [5.0020, 7.0030]\n"


def test_infer_sends_what_it_is_given(built: Sandbox, server: RunningServer) -> None:
    for url in (f"http://{server.http}", f"grpc://{server.grpc}"):
        result = built.cli("infer", "plus_one", "--url", url, "--input", "x=[[1, 2], [3, 4]]")
        assert result.output == "plus_one y: float32 [2, 2] [2.0000, 3.0000, 4.0000, 5.0000]\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["doubled", "--sample", "4"], "doubled: has no sample 4\n  hint: its samples are 0 to 3"),
        (["doubled", "--input", "x=[1,"], "--input x: not JSON"),
        (["doubled", "--input", "z=[1]"], "doubled: has no input 'z'"),
        (["doubled", "--input", 'x=[["a", 1]]'], "doubled: input 'x': not FP32"),
        (["doubled", "--input", "x"], "--input x: must be NAME=JSON"),
        (["doubled", "--input", "x=[[1, 2, 3]]"], "unexpected shape"),
        (["doubled", "--version", "1"], "doubled"),
    ],
)
def test_infer_that_cannot_work(built: Sandbox, server: RunningServer, arguments: list[str], message: str) -> None:
    result = built.cli("infer", *arguments, "--url", f"http://{server.http}")
    assert result.exit_code == 1
    assert message in result.output


def test_infer_that_the_usual_server_refuses_is_an_error_and_starts_no_other(
    built: Sandbox, server: RunningServer
) -> None:
    said: list[str] = []
    with pytest.raises(ServerError, match="unexpected shape"):
        infer(
            built.project,
            "doubled",
            inputs={"x": [[1, 2, 3]]},
            say=said.append,
            default_url=f"http://{server.http}",
        )
    assert said == []


def test_infer_without_a_server_starts_one(built: Sandbox) -> None:
    if listening(8000):
        pytest.skip("something serves on port 8000 of this machine")
    result = built.cli("infer", "doubled")
    assert result.exit_code == 0, result.output
    assert "starting one for this call" in result.output
    assert "doubled y: float32 [1, 2] [0.0000, 2.0010]" in result.output


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_serves_until_it_is_stopped(built: Sandbox, stop: signal.Signals) -> None:
    http, grpc, metrics = free_ports(3)
    ports = ["--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)]
    command = [sys.executable, "-m", "modelwright.cli.main", "--project", str(built.root), "serve", *ports]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=default_sigint
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if "Ctrl-C" in line:
            break
    assert "doubled version 2" in lines
    with connect(f"grpc://127.0.0.1:{grpc}") as client:
        assert client.model_ready("both")
    process.send_signal(stop)
    try:
        assert process.wait(timeout=PATIENCE_S) == 128 + stop
    finally:
        process.kill()  # a test that fails leaves no server behind
    process.stdout.close()
    wait_until(lambda: not listening(http), "the server's end")


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_vendored_requirement_is_used_by_the_server(sandbox: Sandbox) -> None:
    yaml = PYTHON_YAML.replace("{kind: python}", "{kind: python, requirements: [six==1.17.0]}")
    code = """
        import six
        import triton_python_backend_utils as pb_utils


        class TritonPythonModel:
            def execute(self, requests):
                assert six.__version__ == "1.17.0" and "site-packages" in six.__file__ and "/1/" in six.__file__
                x = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
                return [pb_utils.InferenceResponse([pb_utils.Tensor("y", value + 1)]) for value in x]
        """
    sandbox.python_builder(yaml=yaml, code=code)
    outcome = sandbox.build()["plus_one"]
    assert outcome.status == "new", outcome.error
    assert "plus_one/1/site-packages/six.py" in sandbox.published()
    assert not [name for name in sandbox.published() if "__pycache__" in name]


def test_vendored_modules_that_the_local_servers_python_cannot_load(sandbox: Sandbox) -> None:
    yaml = PYTHON_YAML.replace("{kind: python}", "{kind: python, requirements: [regex==2026.11.15]}")
    sandbox.python_builder(yaml=yaml, code="import regex\n" + PYTHON_MODEL_PY)
    project = sandbox.project
    python = ensure(project.server, project.target, lambda text: None).python_version
    if python.startswith(project.target.python):
        pytest.skip(f"the local server here runs Python {python}, the target's own")
    error = sandbox.error()
    assert "plus_one: verify: the server does not load plus_one: " in error
    assert "regex/_regex.cpython-312-x86_64-linux-gnu.so is for the target's Python 3.12" in error
    assert "put a python3.12 on PATH, remove .modelwright/server, and build again" in error


def test_a_project_in_a_folder_with_spaces(tmp_path: Path) -> None:
    sandbox = new_sandbox(tmp_path / "mein pröjekt; $(touch x)")
    sandbox.onnx_builder()
    sandbox.python_builder()
    sandbox.ensemble_builder()
    result = sandbox.cli("build", "--replay")
    assert result.exit_code == 0, result.output
    assert result.output.count("HTTP ok, gRPC ok") == 3


def test_an_unbatched_model(sandbox: Sandbox) -> None:
    folder = sandbox.onnx_builder(yaml=ONNX_YAML.replace("max_batch_size: 8", ""))
    text = (folder / "data.py").read_text().replace("reshape(4, 2)", "reshape(4, 1, 2)")
    (folder / "data.py").write_text(text)
    assert sandbox.build()["doubled"].status == "new"
    assert sandbox.cli("verify").exit_code == 0
    assert "max_batch_size" not in sandbox.config("doubled")


def test_an_int8_version_of_another_cpu_differs_and_does_not_fail(sandbox: Sandbox) -> None:
    """Its golden answers are those of other kernels. On the CPU that verified a version, other answers are a failure."""
    graphs.builder(sandbox, graphs.perceptron, "{mode: static}")
    sandbox.build()
    version = sandbox.project.repository / "small_int8/1"
    manifest, golden = version / "manifest.json", version / "golden.npz"
    before, tensors = sha256_file(golden), load_tensors(golden)
    save_tensors(golden, tensors | {"output/y": tensors["output/y"] + 5})
    manifest.write_text(manifest.read_text().replace(before, sha256_file(golden)))
    result = sandbox.cli("verify", "small_int8")
    assert result.exit_code == 1
    assert "'y' differs by 5.0e+00 from the source" in result.stdout
    manifest.write_text(manifest.read_text().replace(f'"{tools.instruction_set()}"', '"Arm I8MM"'))
    result = sandbox.cli("verify", "small_int8")
    assert result.exit_code == 0, result.output
    assert "differs here" in result.stdout
    assert (
        f"it was verified with Arm I8MM, this CPU has {tools.instruction_set()}: build it on this CPU" in result.stdout
    )
