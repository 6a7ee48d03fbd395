"""The real kubectl, where this machine has one, against a small API server: what it is told is what it takes."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.errors import StepError
from modelwright.facts.plan import PLAN
from modelwright.project.plan_places import KubernetesPlace, PlanPlaces
from modelwright.steps.plan_places.job import CONTAINER
from modelwright.steps.plan_places.kubectl import Kubectl, KubectlError
from modelwright.steps.plan_places.kubernetes import plan_from_job
from tests.steps.plan_places.api import POD, ApiServer, api_server
from tests.steps.plan_places.places import new_request, put_on_path

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl on this machine")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A server that kubectl knows as the context `lab`, and nothing else of this machine's kubectl."""
    assert KUBECTL is not None
    folder = put_on_path(monkeypatch, tmp_path / "bin")
    (folder / "kubectl").symlink_to(KUBECTL)
    with api_server(tmp_path) as made:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {"server": made.url}}],
            "users": [{"name": "ann", "user": {"token": "none"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "ann"}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.setenv("HOME", str(tmp_path))
        yield made


def test_a_plan_comes_back_through_the_real_kubectl(tmp_path: Path, server: ApiServer) -> None:
    made = new_request(tmp_path / "request")
    place = KubernetesPlace(gpus={"8.9": "NVIDIA-L4"}, context="lab", namespace="ml")
    said: list[str] = []
    plan_from_job(made.folder, tmp_path / "out", made.request, PlanPlaces(kubernetes=place), said.append, 0.5)
    assert (tmp_path / "out" / PLAN).read_bytes() == b"ftrt" + b"graph" * 1000
    assert "a line of TensorRT" in said
    assert server.deleted == list(server.jobs)


def test_files_of_many_megabytes_go_both_ways_unchanged(tmp_path: Path, server: ApiServer) -> None:
    kubectl = Kubectl("lab", "ml")
    data = bytes(range(256)) * 4096 * 32  # 32 MiB
    (tmp_path / "large").write_bytes(data)
    server.volume.mkdir()
    kubectl.send(POD, CONTAINER, {"sub/large": tmp_path / "large"}, "/plan/request")
    assert (server.volume / "request/sub/large").read_bytes() == data
    came = io.BytesIO()
    kubectl.fetch(POD, CONTAINER, "/plan/request/sub/large", came, largest=len(data))
    assert came.getvalue() == data


def test_what_fails_in_the_container_is_an_error(server: ApiServer) -> None:
    server.volume.mkdir()
    with pytest.raises(KubectlError, match=r"cannot be read: .*No such file"):
        Kubectl("lab", "ml").fetch(POD, CONTAINER, "/plan/none", io.BytesIO(), largest=1)
    with pytest.raises(KubectlError, match="exit code 7"):
        Kubectl("lab", "ml").run(POD, CONTAINER, "exit 7")


@pytest.mark.parametrize(
    ("context", "hint"),
    [("elsewhere", "kubectl config get-contexts"), ("gone", "kubectl get pods")],
    ids=["no such context", "no server"],
)
def test_what_the_real_kubectl_says_comes_with_what_to_do(
    tmp_path: Path, server: ApiServer, context: str, hint: str
) -> None:
    config = json.loads((tmp_path / "kubeconfig").read_text())
    config["clusters"].append({"name": "gone", "cluster": {"server": "http://127.0.0.1:1"}})
    config["contexts"].append({"name": "gone", "context": {"cluster": "gone", "user": "ann"}})
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    with pytest.raises(StepError) as caught:
        Kubectl(context, "ml").get("pods")
    assert hint in caught.value.hint or "start the cluster" in caught.value.hint, caught.value


def test_a_deletion_of_what_is_not_there_is_no_error(server: ApiServer) -> None:
    done = subprocess.run(Kubectl("lab", "ml").deletion("none"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
