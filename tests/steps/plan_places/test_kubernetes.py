"""A plan from a Job of a cluster. There is no cluster here: places.py has one of folders, with a stand-in for kubectl."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from modelwright.errors import StepError, located
from modelwright.facts.plan import ANSWERS, PLAN
from modelwright.project.plan_places import KubernetesPlace, PlanPlaces
from modelwright.steps.plan_places.job import job_manifest
from modelwright.steps.plan_places.kubernetes import plan_from_job
from tests.steps.plan_places.places import FakeCluster, Request, new_request, pod, put_on_path, unschedulable
from tests.waiting import wait_until

POLL_S = 0.05
PLACE = KubernetesPlace(gpus={"8.9": "NVIDIA-L4"}, start_timeout_s=600)
FULL = KubernetesPlace(
    gpus={"8.9": "NVIDIA-L4"},
    context="lab",
    namespace="ml",
    service_account="builder",
    image_pull_secret="ngc",
    runtime_class="nvidia",
    node_selector={"pool": "gpu"},
    tolerations=("sku",),
)
# The API's schema is kept compatible from release to release; these are the oldest that still gets fixes, and the newest.
VERSIONS = ("1.34", "1.37")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    put_on_path(monkeypatch, tmp_path / "bin", "kubectl")
    return FakeCluster(tmp_path / "cluster", monkeypatch)


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    return new_request(tmp_path / "request")


def built(request: Request, **settings: Any) -> tuple[Path, list[str]]:
    """The result's folder, and what was said."""
    said: list[str] = []
    out = request.folder.parent / "out"
    places = PlanPlaces(**{"kubernetes": PLACE, "timeout_s": 600, **settings})
    plan_from_job(request.folder, out, request.request, places, said.append, POLL_S)
    return out, said


# --- the manifest -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("place", [PLACE, FULL], ids=["least", "everything"])
def test_the_manifest_fits_the_schema_of_the_api(version: str, place: KubernetesPlace) -> None:
    manifest = job_manifest("modelwright-plan-x", "nvcr.io/nvidia/tensorrt:26.07-py3", "NVIDIA-L4", place, 3600)
    kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schema_would_find_a_misspelt_field() -> None:
    manifest = job_manifest("modelwright-plan-x", "image", "NVIDIA-L4", PLACE, 3600)
    manifest["spec"]["backofLimit"] = manifest["spec"].pop("backoffLimit")
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_the_job_asks_for_one_gpu_of_the_product_and_is_never_tried_twice() -> None:
    spec = job_manifest("n", "image", "NVIDIA-L4", FULL, 3600)["spec"]
    inner = spec["template"]["spec"]
    assert (spec["backoffLimit"], inner["restartPolicy"]) == (0, "Never")
    assert inner["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4", "pool": "gpu"}
    assert inner["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert [item["key"] for item in inner["tolerations"]] == ["nvidia.com/gpu", "sku"]
    assert spec["activeDeadlineSeconds"] > 3600 + FULL.start_timeout_s


def test_the_pod_keeps_to_the_restricted_security_standard() -> None:
    inner = job_manifest("n", "image", "NVIDIA-L4", PLACE, 3600)["spec"]["template"]["spec"]
    assert inner["securityContext"]["runAsNonRoot"] is True
    assert inner["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert inner["automountServiceAccountToken"] is False


# --- a build ----------------------------------------------------------------------------------------------------------


def test_the_plan_comes_back_and_the_job_is_gone(cluster: FakeCluster, request_: Request) -> None:
    out, said = built(request_)
    assert (out / PLAN).read_bytes() == b"ftrt" + b"graph" * 1000
    assert sorted(path.name for path in (out / ANSWERS).iterdir()) == ["00000.npz", "00001.npz", "00002.npz"]
    assert "a line of TensorRT" in said
    name = cluster.job["metadata"]["name"]
    assert name.startswith("modelwright-plan-digits-trt-")
    assert cluster.deleted == [name]
    assert sorted(path.name for path in out.parent.iterdir()) == ["bin", "cluster", "out", "request"]


def test_kubectl_is_told_the_context_and_the_namespace(cluster: FakeCluster, request_: Request) -> None:
    built(request_, kubernetes=FULL)
    assert all(call[:2] == ["--context=lab", "--namespace=ml"] for call in cluster.calls)


def test_what_a_job_waits_for_is_said_as_it_changes(cluster: FakeCluster, request_: Request) -> None:
    waiting = unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    pulling = pod("Pending", container={"waiting": {"reason": "ContainerCreating"}})
    cluster.says(pods=[[], [waiting], [waiting], [pulling], [pod()]])
    _, said = built(request_)
    name = cluster.job["metadata"]["name"]
    assert said[0].startswith(f"Job {name}: created, for a node with NVIDIA-L4:\napiVersion: batch/v1\nkind: Job\n")
    assert said[1:5] == [
        f"Job {name}: the Job has no pod yet",
        f"Job {name}: Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        f"Job {name}: ContainerCreating",
        f"Job {name}: its pod plan-x7k2p runs",
    ]


def test_a_transfer_that_is_cut_short_without_a_word_is_repeated(cluster: FakeCluster, request_: Request) -> None:
    cluster.says(cut=2)
    out, _ = built(request_)
    assert (out / PLAN).is_file()


def test_a_cluster_that_cuts_every_transfer_short_is_an_error(cluster: FakeCluster, request_: Request) -> None:
    cluster.says(cut=99)
    with pytest.raises(StepError, match=r"result.tar was cut short after \d+ of \d+ bytes"):
        built(request_)
    assert cluster.deleted


@pytest.mark.parametrize("verb", ["get", "exec"])
def test_a_cluster_that_cannot_be_reached_for_a_moment_is_asked_again(
    cluster: FakeCluster, request_: Request, verb: str
) -> None:
    cluster.says(errors={verb: "Unable to connect to the server: net/http: TLS handshake timeout"}, failures=2)
    out, said = built(request_)
    assert (out / PLAN).is_file()
    assert len([line for line in said if line.endswith("TLS handshake timeout; trying again")]) == 2


def test_a_job_that_cannot_be_deleted_is_named(cluster: FakeCluster, request_: Request) -> None:
    cluster.says(errors={"delete": "Unable to connect to the server"})
    _, said = built(request_)
    name = cluster.job["metadata"]["name"]
    assert f"Job {name} could not be deleted; it ends by itself, or: kubectl delete job {name} " in said[-1]
    cluster.stop()


# --- what goes wrong --------------------------------------------------------------------------------------------------

DEADLINE = {
    "status": {
        "conditions": [
            {
                "type": "Failed",
                "status": "True",
                "reason": "DeadlineExceeded",
                "message": "Job was active longer than specified deadline",
            }
        ]
    }
}
QUOTA = {"items": [{"reason": "FailedCreate", "message": 'pods "x" is forbidden: exceeded quota: gpus'}]}
PREEMPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "message": "preempting to accommodate a higher priority pod",
}


@pytest.mark.parametrize(
    ("answers", "message", "hint"),
    [
        (
            {"pods": [[pod("Pending", container={"waiting": {"reason": "ErrImagePull"}})],
                      [pod("Pending", container={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}})]]},
            "ImagePullBackOff: Back-off pulling",
            "image_pull_secret",
        ),
        ({"pods": [[pod("Pending", container={"waiting": {"reason": "InvalidImageName"}})]]}, "InvalidImageName", "tensorrt.image"),
        ({"pods": [[]], "events": QUOTA}, "FailedCreate: pods .* exceeded quota: gpus", "a quota or a policy"),
        ({"pods": [[]], "job": DEADLINE}, "DeadlineExceeded: Job was active longer", "raise tensorrt.timeout"),
        (
            {"pods": [[pod("Failed", container={"terminated": {"reason": "StartError", "exitCode": 128, "message": "exec: sh"}})]]},
            "StartError: exec: sh",
            "the image may lack a shell",
        ),
        (
            {"pods": [[pod("Failed", container={"terminated": {"reason": "Error", "exitCode": 3}})]]},
            "its container ended with exit code 3",
            "build again",
        ),
    ],
    ids=["image", "name of the image", "quota", "deadline", "no shell", "ended"],
)  # fmt: skip
def test_a_job_that_cannot_start_ends_at_once_with_the_reason(
    cluster: FakeCluster, request_: Request, answers: dict[str, Any], message: str, hint: str
) -> None:
    cluster.says(**answers)
    with pytest.raises(StepError, match=f"Job modelwright-plan-.*: {message}") as caught:
        built(request_)
    assert hint in caught.value.hint
    assert cluster.deleted == [cluster.job["metadata"]["name"]]
    assert not (request_.folder.parent / "out").exists()


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", "kubectl get nodes -L nvidia.com/gpu.product"),
        ("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", "all such GPUs are taken"),
    ],
    ids=["no such node", "busy"],
)  # fmt: skip
def test_a_job_that_finds_no_node_in_time_says_what_to_do(
    cluster: FakeCluster, request_: Request, message: str, hint: str
) -> None:
    cluster.says(pods=[[unschedulable(message)]])
    place = KubernetesPlace(gpus=PLACE.gpus, start_timeout_s=0.2)
    with pytest.raises(StepError, match=r"did not start within 0\.2 s: Unschedulable: 0/3 nodes") as caught:
        built(request_, kubernetes=place)
    assert hint in caught.value.hint
    assert cluster.deleted


@pytest.mark.parametrize(
    ("ended", "message", "hint"),
    [
        (pod("Failed", reason="Evicted", message="The node was low on resource: memory."), "Evicted: The node was low", "storage"),
        (pod("Failed", container={"terminated": {"reason": "OOMKilled", "exitCode": 137}}), "OOMKilled: exit code 137", "memory"),
        (pod("Failed", conditions=[PREEMPTED]), "PreemptionByScheduler: preempting", "higher priority"),
        ({"metadata": {"name": "plan-x7k2p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {}}, "the pod was deleted", "again"),
    ],
    ids=["evicted", "memory", "preempted", "deleted"],
)  # fmt: skip
def test_a_pod_that_is_lost_while_it_builds_is_an_error_with_the_reason(
    cluster: FakeCluster, request_: Request, ended: dict[str, Any], message: str, hint: str
) -> None:
    gone = 'Error from server (NotFound): pods "plan-x7k2p" not found'
    cluster.says(pods=[[pod()], [ended]], errors={"exec": gone})
    with pytest.raises(StepError, match=message) as caught:
        built(request_)
    assert hint in caught.value.hint
    assert cluster.deleted


@pytest.mark.parametrize(
    ("how", "message", "hint"),
    [
        ("dies", "the plan builder died half-way, exit code 9; its log ends:\n.*half of a plan is there", "build again"),
        ("links", "its result: holds './model.plan', which no result may hold", "build it again"),
        ("hangs", "did not end within 2 s; ", "raise tensorrt.timeout"),
    ],
)  # fmt: skip
def test_nothing_comes_back_from_a_builder_that_fails(
    cluster: FakeCluster, request_: Request, monkeypatch: pytest.MonkeyPatch, how: str, message: str, hint: str
) -> None:
    monkeypatch.setenv("FAKE_BUILDER", how)
    with pytest.raises(StepError, match=f"(?s)Job modelwright-plan-.*: {message}") as caught:
        built(request_, timeout_s=2 if how == "hangs" else 600)
    assert hint in caught.value.hint
    assert cluster.deleted
    assert not (request_.folder.parent / "out").exists()


@pytest.mark.parametrize(
    ("verb", "said", "hint"),
    [
        (
            "create",
            'jobs.batch is forbidden: User "ann" cannot create resource "jobs" in API group "batch" in the namespace "ml"',
            "create, get, delete of jobs",
        ),
        ("create", 'namespaces "ml" not found', "kubectl get namespaces"),
        ("create", 'error: context "lab" does not exist', "kubectl config get-contexts"),
        ("create", "The connection to the server localhost:8080 was refused", "set KUBECONFIG"),
        ("create", "error: You must be logged in to the server (Unauthorized)", "log in to the cluster"),
        ("get", "Unable to connect to the server: dial tcp: lookup lab: no such host", "cannot be reached"),
        ("exec", 'pods "x" is forbidden: User "ann" cannot create resource "pods/exec"', "create of pods/exec"),
    ],
    ids=["rights", "namespace", "context", "no cluster", "login", "no network", "exec"],
)  # fmt: skip
def test_what_kubectl_says_comes_with_what_to_do(
    cluster: FakeCluster, request_: Request, verb: str, said: str, hint: str
) -> None:
    cluster.says(errors={verb: said})
    with pytest.raises(StepError, match=f"^here: kubectl {verb}") as caught, located("here"):
        built(request_)
    assert said in caught.value.message
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # as it leaves a worker
    assert hint in caught.value.hint
    assert cluster.deleted


def test_a_capability_without_a_product_is_named(cluster: FakeCluster, request_: Request) -> None:
    place = KubernetesPlace(gpus={"8.0": "NVIDIA-A100-SXM4-80GB"})
    with pytest.raises(
        StepError, match=r"tensorrt.kubernetes.gpus: no GPU product is named for compute capability 8\.9"
    ):
        built(request_, kubernetes=place)
    assert cluster.calls == []


def test_without_kubectl_the_message_says_so(
    tmp_path: Path, request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(monkeypatch, tmp_path / "bin")
    with pytest.raises(StepError, match="there is no kubectl here"):
        built(request_)


BUILD = """
import sys
from pathlib import Path
from modelwright.facts.plan import PlanRequest
from modelwright.project.plan_places import KubernetesPlace, PlanPlaces
from modelwright.steps.plan_places.kubernetes import plan_from_job

folder = Path(sys.argv[1])
request = PlanRequest.model_validate_json((folder / "request.json").read_text())
places = PlanPlaces(kubernetes=KubernetesPlace(gpus={"8.9": "NVIDIA-L4"}))
plan_from_job(folder, folder.parent / "out", request, places, lambda line: print(line, flush=True), 0.1)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_step_that_ends_in_the_middle_leaves_no_job(
    cluster: FakeCluster, request_: Request, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    """Ctrl-C ends worker processes with SIGKILL, and a build in this process with KeyboardInterrupt."""
    monkeypatch.setenv("FAKE_BUILDER", "hangs")
    command = [sys.executable, "-c", BUILD, str(request_.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as step:
        assert step.stdout is not None
        lines = iter(step.stdout.readline, b"")
        assert any(b"TensorRT" in line for line in lines)
        step.send_signal(how)
    wait_until(lambda: cluster.deleted, "the removal of the Job")
    wait_until((cluster.folder / "is deleted").exists, "the removal of the Job")


def test_the_request_says_nothing_of_where_it_is_built(cluster: FakeCluster, request_: Request) -> None:
    """The same request goes to a container, a Job, and a program here."""
    built(request_)
    sent = json.loads((cluster.folder / "plan/request/request.json").read_text())
    assert "kubernetes" not in json.dumps(sent)
