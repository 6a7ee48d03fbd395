"""A Kubernetes Job on a GPU node, as a place for plans: it needs kubectl, and the names of the nodes' GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from modelwright.programs import Ran
from modelwright.project.plan_places import GPUS_HINT, KubernetesPlace, PlanPlaces
from modelwright.variants.places import Place, PlanMachine, WantedPlans

KUBERNETES = "kubernetes"
_PATIENCE_S = 5.0
_CLUSTER_S = 15.0
# (verb, resource and subresource); kubectl of different ages opens `exec` by get or by create.
_RIGHTS = (
    ("create", "jobs.batch"),
    ("get", "jobs.batch"),
    ("delete", "jobs.batch"),
    ("list", "pods"),
    ("list", "events"),
    ("get", "pods", "--subresource=exec"),
    ("create", "pods", "--subresource=exec"),
)


def find(wanted: WantedPlans, places: PlanPlaces, machine: PlanMachine) -> Place | str:
    """The cluster, as far as this machine knows it: to plan a build, it is not asked."""
    cluster = places.kubernetes
    if not cluster.gpus:
        return f"modelwright.toml names no GPU of the cluster ({GPUS_HINT})"
    chosen = wanted.compute_capabilities or tuple(cluster.gpus)[:1]
    missing = [capability for capability in chosen if capability not in cluster.gpus]
    if missing:
        return f"tensorrt.kubernetes.gpus names no GPU of compute capability {', '.join(missing)} ({GPUS_HINT})"
    context = machine.run(["kubectl", "config", "current-context"], _PATIENCE_S)
    if context.code is None:
        return f"{context.error} (install kubectl)"
    if context.code != 0 and not cluster.context:
        return "kubectl has no current context (kubectl config use-context, or tensorrt.kubernetes.context)"
    image = places.image_for(wanted.release.name)
    products = ", ".join(f"{cluster.gpus[capability]} ({capability})" for capability in chosen)
    where = f"context {cluster.context or context.output.strip()}"
    if cluster.namespace:
        where += f", namespace {cluster.namespace}"
    builder = "modelwright.steps.plan_places.kubernetes:build"
    return Place(KUBERNETES, builder, "", chosen, image, why=f"a Job on {products}; {where}; {image}")


def problems(cluster: KubernetesPlace, run: Callable[[Sequence[str], float], Ran]) -> Iterator[tuple[str, str]]:
    """What a Job would lack in the cluster, and what to do: it is asked."""
    kubectl = ["kubectl", *([f"--context={cluster.context}"] if cluster.context else [])]
    own = [f"--namespace={cluster.namespace}"] if cluster.namespace else []
    for right in _RIGHTS:
        ran = run([*kubectl, *own, "auth", "can-i", *right], _CLUSTER_S)
        if ran.output.startswith("no"):
            named = " ".join(right).replace(" --subresource=", "/")
            yield f"this account may not {named}", "ask for the rights that docs/tensorrt.md lists"
        elif ran.code != 0:
            yield f"the cluster does not answer: {ran.last_line}", "try: kubectl get pods"
            return
    for product in dict.fromkeys(cluster.gpus.values()):
        ran = run(
            [*kubectl, "get", "nodes", f"--selector=nvidia.com/gpu.product={product}", "--output=name"], _CLUSTER_S
        )
        if ran.code == 0 and not ran.output.strip():  # an account need not be allowed to see nodes
            yield f"no node has nvidia.com/gpu.product={product}", "see: kubectl get nodes -L nvidia.com/gpu.product"
