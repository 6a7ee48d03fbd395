"""Builds in a real MLflow: in the project's own database, and in a real `mlflow server`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.digest import list_tree, sha256_file
from modelwright.project.tracking import Tracking
from modelwright.tracking.bundle_child import BundleOrder, pull
from modelwright.tracking.child import Order, Registry
from modelwright.tracking.outbox import Outbox
from modelwright.tracking.record import BuildRecord, Epoch
from modelwright.tracking.recorder import order_of, send
from tests.conftest import DATA_PY, ONNX_YAML, Sandbox
from tests.ports import free_port
from tests.tracking.test_describe import CONFUSION_PY
from tests.tracking.test_settings import with_tracking
from tests.waiting import wait_until

# Warnings of MLflow's own libraries, about each other, where a test asks it in this process.
pytestmark = [pytest.mark.mlflow, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]

COUNTED_YAML = (
    ONNX_YAML.replace("data:evaluate", "data:counted")
    + """
inputs: [{name: x, dtype: FP32, shape: [2]}]
outputs: [{name: y, dtype: FP32, shape: [2], labels: labels.txt}]
"""
)
# Without the processes that run its jobs: there are nine, and each imports MLflow.
LEAN = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
TAKEN_YAML = """
source: {kind: mlflow, model: models:/doubled@live}
samples: data:samples
serving: {max_batch_size: 8}
"""


@dataclass
class Seen:
    """What a registry has."""

    client: Any

    @classmethod
    def of(cls, sandbox: Sandbox) -> Seen:
        from mlflow.tracking import MlflowClient

        uri = sandbox.project.tracking.registry(sandbox.project.state)
        return cls(MlflowClient(uri, uri))

    def runs(self, experiment: str = "project") -> list[Any]:
        """Oldest first."""
        found = self.client.get_experiment_by_name(experiment)
        return sorted(self.client.search_runs([found.experiment_id]), key=lambda run: run.info.start_time)

    def versions(self, model: str) -> dict[int, str]:
        """MLflow's number → ours."""
        found = self.client.search_model_versions(f"name='{model}'")
        return {int(item.version): item.tags["modelwright.version"] for item in found}

    def live(self, model: str) -> int | None:
        alias = self.client.get_registered_model(model).aliases.get("live")
        return None if alias is None else int(alias)


@pytest.fixture(scope="module")
def tracked(sandbox_factory: Callable[[], Sandbox]) -> Sandbox:
    """A project that records its builds in a database of its own. One model is published, another misses its gate."""
    sandbox = with_tracking(sandbox_factory())
    folder = sandbox.onnx_builder(yaml=COUNTED_YAML)
    (folder / "data.py").write_text(CONFUSION_PY)
    (folder / "labels.txt").write_text("cat\ndog\n")
    sandbox.onnx_builder("missed", ONNX_YAML.replace("min: 0.9", "min: 1.5"))
    outcomes = sandbox.build()
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"doubled": "new", "missed": "failed"}
    assert all(outcome.warnings == () for outcome in outcomes.values())
    return sandbox


def test_a_published_build_is_a_run_and_a_registered_version(tracked: Sandbox) -> None:
    seen, manifest = Seen.of(tracked), tracked.manifest("doubled")
    run = next(run for run in seen.runs() if run.info.run_name == "doubled 1")
    assert run.info.status == "FINISHED"
    assert run.data.params["source.kind"] == "onnx"
    assert run.data.params["gate.accuracy.min"] == "0.9"
    assert run.data.metrics["accuracy"] == 1.0
    assert run.data.metrics["size_bytes"] == manifest.size_bytes
    tags = run.data.tags
    assert tags["modelwright.version_digest"] == manifest.version_digest
    assert tags["modelwright.gate.accuracy"] == "passed: 1, min 0.9"
    assert tags["modelwright.step_key.verify"] == manifest.lineage[-1].key
    assert {"modelwright.code_digest", "modelwright.data_digest"} <= tags.keys()
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(tracked.project.state / "mlflow")
    version = {"manifest.json", "model.onnx", "MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"}
    expected = {"confusion.svg", "confusion.json", "report.md", *(f"version/{name}" for name in version)}
    assert expected == set(list_tree(artifacts))
    assert "<svg" in (artifacts / "confusion.svg").read_text()
    assert "dog" in (artifacts / "confusion.svg").read_text()
    assert sha256_file(artifacts / "version/manifest.json") == tracked.published()["doubled/1/manifest.json"]
    assert seen.versions("doubled") == {1: "1"}
    assert seen.live("doubled") == 1


def test_a_build_that_misses_a_gate_is_a_failed_run(tracked: Sandbox) -> None:
    seen = Seen.of(tracked)
    run = next(run for run in seen.runs() if run.data.tags["modelwright.model"] == "missed")
    assert run.info.status == "FAILED"
    assert "accuracy is 1, the gate asks for at least 1.5" in run.data.tags["modelwright.reason"]
    assert run.data.tags["modelwright.gate.accuracy"] == "missed: 1, min 1.5"
    assert run.data.metrics["accuracy"] == 1.0
    assert [model.name for model in seen.client.search_registered_models()] == ["doubled"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of MLflow, about its own type hints
def test_a_registered_version_is_a_model_that_mlflow_loads_and_a_project_builds(
    tracked: Sandbox, sandbox_factory: Callable[[], Sandbox]
) -> None:
    import mlflow

    uri = tracked.project.registry
    mlflow.set_tracking_uri(uri)  # what another test said, in the same process, goes before the environment
    mlflow.set_registry_uri(uri)
    loaded = mlflow.pyfunc.load_model("models:/doubled/1")
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(loaded.predict({"x": rows})["y"], rows * 2)
    assert loaded.metadata.signature.inputs.input_names() == ["x"]
    other = with_tracking(sandbox_factory(), f'uri = "{uri}"')
    other.write("taken", model_yaml=TAKEN_YAML, data_py=DATA_PY)
    assert other.build()["taken"].error is None
    assert other.published()["taken/1/model.onnx"] == tracked.published()["doubled/1/model.onnx"]
    assert "resolved: models:/doubled/1" in (other.root / "builders/taken/source.lock").read_text()


def test_the_alias_follows_and_numbers_stay_the_same(tracked: Sandbox) -> None:
    """A number that was reserved and never published is used up in the registry, too; what waits comes along."""
    repository = tracked.repository
    repository.reserve(["doubled"])  # as a publish that a full disk ended
    tracked.onnx_builder(yaml=ONNX_YAML, factor=2.001)
    epochs = (Epoch(step=1, metrics={"loss": 0.5}), Epoch(step=2, metrics={"loss": 0.25}))
    waiting = BuildRecord(uid="0", model="doubled", status="unchanged", started_ms=1, ended_ms=2, epochs=epochs)
    Outbox.of(tracked.project.state).put(waiting, {})
    assert tracked.build("doubled")["doubled"].version == 3
    seen = Seen.of(tracked)
    assert seen.versions("doubled") == {1: "1", 3: "3"}
    assert seen.live("doubled") == 3
    assert tracked.cli("rollback", "doubled").exit_code == 0
    assert seen.live("doubled") == 1
    curve = seen.client.get_metric_history(seen.runs()[0].info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.25)]


def test_a_model_goes_to_the_registry_and_comes_back_byte_for_byte(
    tracked: Sandbox, sandbox_factory: Callable[[], Sandbox]
) -> None:
    done = tracked.cli("track", "push", "doubled")
    assert done.exit_code == 0, done.output
    other = with_tracking(sandbox_factory(), f'uri = "{tracked.project.tracking.registry(tracked.project.state)}"')
    assert other.project.tracking == Tracking(uri=tracked.project.tracking.registry(tracked.project.state))
    asked = BundleOrder(action="pull", order=Order(**order_of(other.project)), model="nothing", folder="")
    with pytest.raises(ValueError, match="there is no model nothing; models with files: doubled"):
        pull(Registry(asked.order), asked)
    done = other.cli("track", "pull", "doubled")
    assert done.exit_code == 0, done.output
    assert other.published() == tracked.published()
    checked = other.cli("fsck")
    assert checked.exit_code == 0, checked.output


# --- a server ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real `mlflow server` with one worker, ended by its process group's id."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, **LEAN},
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    try:
        wait_until(is_up, "the MLflow server")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_is_down_fails_no_build_and_is_caught_up(sandbox: Sandbox, mlflow_server: str) -> None:
    port = free_port()
    settings = with_tracking(sandbox, f'mlflow = true\nuri = "http://127.0.0.1:{port}"\nexperiment = "shared"').root
    sandbox.onnx_builder()
    done = sandbox.cli("build")
    assert done.exit_code == 0, done.output
    warning = f"Warning: doubled: not recorded in MLflow: http://127.0.0.1:{port}: Connection refused; the next build"
    assert warning in done.output
    assert sandbox.repository.versions("doubled") == [1]
    done = sandbox.cli("build")
    assert "Nothing to do" in done.output
    assert warning in done.output, "as long as it is not recorded, builds say so"
    assert "Connection refused; still waiting: doubled" in sandbox.error("track")
    file = settings / "modelwright.toml"
    file.write_text(file.read_text().replace(f"http://127.0.0.1:{port}", mlflow_server))
    done = sandbox.cli("track")
    assert done.exit_code == 0, done.output
    assert done.output == "doubled version 1 is registered\ndoubled: live is version 1\n1 run recorded.\n"
    seen = Seen.of(sandbox)
    assert [run.info.status for run in seen.runs("shared")] == ["FINISHED"]
    assert seen.versions("doubled") == {1: "1"}
    source = seen.client.get_model_version("doubled", "1").source
    assert source.startswith("mlflow-artifacts:/")
    there = seen.client.list_artifacts(seen.runs("shared")[0].info.run_id, "version")
    assert {"version/MLmodel", "version/model.onnx"} <= {item.path for item in there}
    # The same from nothing: the registry has it all, so nothing is there twice.
    (sandbox.project.state / "tracking/registered.json").unlink()
    sent = send(sandbox.project)
    assert (sent.problem, sent.registered) == ("", {"doubled": {1: 1}})
    assert len(seen.runs("shared")) == 1


def test_another_tool_registers_there_too(sandbox: Sandbox, mlflow_server: str) -> None:
    """Then MLflow's numbers are not ours: a tag says which is which."""
    with_tracking(sandbox, f'mlflow = true\nuri = "{mlflow_server}"')
    client = Seen.of(sandbox).client
    client.create_registered_model("shared")
    run = client.create_run(client.create_experiment("theirs"))
    client.create_model_version("shared", f"{run.info.artifact_uri}/model", run.info.run_id)
    sandbox.onnx_builder("shared")
    assert sandbox.build()["shared"].warnings == ()
    assert client.get_model_version("shared", "2").tags["modelwright.version"] == "1"
    assert client.get_registered_model("shared").aliases == {"live": "2"}


def test_a_server_that_hangs_delays_a_build_for_seconds(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # instead of our 10
    with socket.create_server(("127.0.0.1", 0), backlog=8) as hanging:
        with_tracking(sandbox, f'mlflow = true\nuri = "http://127.0.0.1:{hanging.getsockname()[1]}"')
        sandbox.onnx_builder()
        outcome = sandbox.build()["doubled"]
    assert outcome.status == "new"
    assert "takes connections and does not answer in time" in outcome.warnings[0]
