"""The Job that builds one plan on a GPU node, as the Kubernetes API has it.

How a request gets there and its result back: both go through `kubectl exec`, to a volume that lives as long as the pod.
So a cluster needs no shared storage, no object store and no registry of ours, and a graph may have gigabytes. The
container waits for the request, builds, and waits until the result was taken. It ends by itself where nobody comes.
"""

from __future__ import annotations

from typing import Any

from modelwright.project.plan_places import KubernetesPlace

CONTAINER = "builder"
FOLDER = "/plan"  # of the volume
ENDED = "ended"  # the exit code of the builder, once it has ended
TAKEN = "taken"  # made when the result was fetched
LOG = "builder.log"
RESULT = "result.tar"
LABEL = "modelwright/plan"
GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"

_WAIT_S = 600  # for a request to arrive, and for a result to be fetched
_KEPT_S = 600  # a Job that ended, so that a person can look at it
_USER = 1000
# The arguments of `sh -c`: the image's own entry point, which sets CUDA up, stays in place.
_SCRIPT = f"""
cd {FOLDER}
wait_for() {{
  waited=0
  until [ -e "$1" ]; do
    [ "$waited" -lt {_WAIT_S} ] || {{ echo "no $1 within {_WAIT_S} s"; exit 3; }}
    sleep 1
    waited=$((waited + 1))
  done
}}
touch {LOG}
wait_for request/parcel.json
mkdir -p result
tail -f {LOG} &
sh request/start.sh request result >{LOG} 2>&1
code=$?
tar -cf {RESULT} -C result .
echo $code >{ENDED}.part
mv {ENDED}.part {ENDED}
wait_for {TAKEN}
"""


def job_manifest(name: str, image: str, product: str, place: KubernetesPlace, timeout_s: float) -> dict[str, Any]:
    """A Job of one pod, never tried again, with one GPU of this product."""
    labels = {"app.kubernetes.io/name": "modelwright-plan-builder", LABEL: name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(place.start_timeout_s + timeout_s + 2 * _WAIT_S),
            "ttlSecondsAfterFinished": _KEPT_S,
            "template": {"metadata": {"labels": labels}, "spec": _pod(image, product, place)},
        },
    }


def _pod(image: str, product: str, place: KubernetesPlace) -> dict[str, Any]:
    """Within the `restricted` Pod Security Standard: no root, no token of the API, no way to more rights."""
    optional: dict[str, Any] = {
        "serviceAccountName": place.service_account,
        "runtimeClassName": place.runtime_class,
        "imagePullSecrets": [{"name": place.image_pull_secret}] if place.image_pull_secret else [],
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "nodeSelector": {PRODUCT: product, **place.node_selector},
        "tolerations": [{"key": key, "operator": "Exists"} for key in (GPU, *place.tolerations)],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(image, place)],
        "volumes": [{"name": "plan", "emptyDir": {"sizeLimit": place.storage}}],
        **{field: value for field, value in optional.items() if value},
    }


def _container(image: str, place: KubernetesPlace) -> dict[str, Any]:
    amounts = {"cpu": place.cpu, "memory": place.memory, "ephemeral-storage": place.storage}
    return {
        "name": CONTAINER,
        "image": image,
        "args": ["sh", "-c", _SCRIPT],
        "env": [{"name": "HOME", "value": FOLDER}],
        "resources": {"requests": amounts, "limits": {GPU: 1, "memory": place.memory}},
        "volumeMounts": [{"name": "plan", "mountPath": FOLDER}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
