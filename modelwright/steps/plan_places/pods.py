"""How far a Job's pod is, from what the API says; and what to do where it does not start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelwright.steps.plan_places.job import CONTAINER

Json = Mapping[str, Any]

_IMAGE = (
    "see that nodes can pull it, with tensorrt.kubernetes.image_pull_secret where it needs a login;"
    " or name another, by tensorrt.image"
)
# Reasons for which a container waits, and that do not pass.
_STUCK = {
    "ImagePullBackOff": _IMAGE,
    "ErrImageNeverPull": _IMAGE,
    "InvalidImageName": "correct tensorrt.image in modelwright.toml",
    "CreateContainerConfigError": "the message says what the cluster lacks",
    "CreateContainerError": "the image may lack a shell: name one that has sh and python3, by tensorrt.image",
    "RunContainerError": "the node may lack the NVIDIA container runtime: see tensorrt.kubernetes.runtime_class",
}
_MEMORY = "raise tensorrt.kubernetes.memory in modelwright.toml"
# Reasons for which a pod or a Job has ended.
_OVER = {
    "OOMKilled": _MEMORY,
    "Evicted": "the node ran short of something: raise tensorrt.kubernetes.memory or storage, or use another node",
    "DeadlineExceeded": "raise tensorrt.timeout in modelwright.toml",
    "PreemptionByScheduler": "another pod with a higher priority took its place: build again later",
    "StartError": _STUCK["CreateContainerError"],
    "ContainerCannotRun": _STUCK["CreateContainerError"],
}
_AGAIN = "build again"
_FAILED_CREATE = (
    "a quota or a policy of the namespace refuses the pod: ask its owner, or choose another"
    " tensorrt.kubernetes.namespace"
)


@dataclass(frozen=True)
class PodState:
    stage: Literal["waiting", "running", "over"]
    why: str = ""  # "Unschedulable: 0/3 nodes are available"
    hint: str = ""
    pod: str = ""  # its name, once there is one


def state_of(job: Json, pods: Sequence[Json], events: Sequence[Json] = ()) -> PodState:
    """The state of a Job that has at most one pod. `events` are those of the Job."""
    if not pods:
        return _without_pod(job, events)
    pod = pods[0]
    name, status = str(pod["metadata"]["name"]), pod.get("status", {})
    conditions = {item["type"]: item for item in status.get("conditions", ())}
    container: Json = next((item for item in status.get("containerStatuses", ()) if item["name"] == CONTAINER), {})
    state = container.get("state", {})
    if (
        status.get("phase") in ("Failed", "Succeeded")
        or "terminated" in state
        or "deletionTimestamp" in pod["metadata"]
    ):
        return _over(name, status, conditions, state)
    waiting = state.get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in _STUCK:
        return PodState("over", _text(reason, waiting), _STUCK[reason], name)
    if "running" in state:
        return PodState("running", pod=name)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return PodState("waiting", _text(scheduled.get("reason", ""), scheduled), _hint_for_node(scheduled), name)
    return PodState("waiting", _text(reason or status.get("phase", "Pending"), waiting), _AGAIN, name)


def _without_pod(job: Json, events: Sequence[Json]) -> PodState:
    failed = _condition(job, "Failed")
    if failed:
        return PodState(
            "over", _text(failed.get("reason", "Failed"), failed), _OVER.get(failed.get("reason", ""), _AGAIN)
        )
    refused = [event for event in events if event.get("reason") == "FailedCreate"]
    if refused:
        return PodState("over", _text("FailedCreate", refused[-1]), _FAILED_CREATE)
    return PodState("waiting", "the Job has no pod yet", _AGAIN)


def _over(name: str, status: Json, conditions: Mapping[str, Json], state: Json) -> PodState:
    ended = state.get("terminated", {})
    disruption = conditions.get("DisruptionTarget", {})
    for reason, told in (
        (status.get("reason"), status),
        (ended.get("reason"), {"message": ended.get("message") or f"exit code {ended.get('exitCode')}"}),
        (disruption.get("reason"), disruption),
    ):
        if reason and reason not in ("Error", "Completed"):
            return PodState("over", _text(reason, told), _OVER.get(reason, _AGAIN), name)
    if ended:
        return PodState("over", f"its container ended with exit code {ended.get('exitCode')}", _AGAIN, name)
    return PodState("over", "the pod was deleted", _AGAIN, name)


def _condition(object_: Json, kind: str) -> Json:
    conditions = object_.get("status", {}).get("conditions", ())
    return next((item for item in conditions if item["type"] == kind and item["status"] == "True"), {})


def _hint_for_node(scheduled: Json) -> str:
    if "Insufficient" in str(scheduled.get("message")):
        return "all such GPUs are taken: wait, free one, or raise tensorrt.kubernetes.start_timeout"
    return (
        "no node fits: see what there is (kubectl get nodes -L nvidia.com/gpu.product), and correct"
        " tensorrt.kubernetes.gpus, node_selector or tolerations in modelwright.toml"
    )


def _text(reason: str, told: Json) -> str:
    message = " ".join(str(told.get("message") or "").split())
    return f"{reason}: {message}" if message else reason
