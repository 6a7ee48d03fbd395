"""`[tensorrt]` of modelwright.toml: where TensorRT plans are built.

    [tensorrt]
    plan_builder = "auto"     # local, then container; or one of local, container, kubernetes, none
    timeout = 3600            # seconds for one plan
    image = "registry.example.com/tensorrt:26.07"   # of container and Kubernetes Job; default: NVIDIA's of the target

    [tensorrt.kubernetes]
    context = "lab"
    namespace = "ml"
    gpus = { "8.9" = "NVIDIA-L4", "8.0" = "NVIDIA-A100-SXM4-80GB" }   # compute capability = "nvidia.com/gpu.product"

None of this is in a step key: it says where a plan is built, not what it is. The image is, as part of the place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from modelwright.errors import ProjectError
from modelwright.suggest import did_you_mean

PlanBuilder: TypeAlias = Literal["auto", "local", "container", "kubernetes", "none"]
PLAN_BUILDERS: tuple[str, ...] = get_args(PlanBuilder)
COMPOSE_FILE = "docker-compose.yml"
COMPOSE_SERVICE = "plan-builder"

_CAPABILITY = re.compile(r"[1-9]\d?\.\d")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # of a Kubernetes object
_LABEL = re.compile(r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")  # the value of a label
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")  # of a label or a taint
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_ANY = re.compile(r"\S+")
GPUS_HINT = (
    'write: [tensorrt.kubernetes] and gpus = { "8.9" = "NVIDIA-L4" }; '
    "what nodes have: kubectl get nodes -L nvidia.com/gpu.product"
)


@dataclass(frozen=True)
class KubernetesPlace:
    """`[tensorrt.kubernetes]`: the cluster, and the Job that builds a plan there."""

    gpus: Mapping[str, str] = field(default_factory=dict)  # compute capability → the nodes' nvidia.com/gpu.product
    context: str = ""  # of kubectl; "" for its current one
    namespace: str = ""  # "" for the context's
    service_account: str = ""
    image_pull_secret: str = ""
    runtime_class: str = ""  # where GPUs need one: "nvidia"
    node_selector: Mapping[str, str] = field(default_factory=dict)  # beside the GPU's product
    tolerations: tuple[str, ...] = ()  # keys of taints, beside nvidia.com/gpu
    cpu: str = "2"
    memory: str = "8Gi"
    storage: str = "20Gi"  # of the node's disk, for graph and plan
    start_timeout_s: float = 900.0  # until the Job runs: clusters that scale up need minutes


@dataclass(frozen=True)
class PlanPlaces:
    plan_builder: PlanBuilder = "auto"
    timeout_s: float = 3600.0  # for one plan, once its builder runs
    image: str = ""  # of container and Job; "" for NVIDIA's of the target release
    compose_file: Path = Path(COMPOSE_FILE)
    kubernetes: KubernetesPlace = field(default_factory=KubernetesPlace)

    def image_for(self, release: str) -> str:
        """The image that builds plans for a Triton release: NVIDIA's of the same month has the same TensorRT."""
        return self.image or f"nvcr.io/nvidia/tensorrt:{release}-py3"


def read_plan_places(table: Any, root: Path, file: str, longest_s: float) -> PlanPlaces:
    """`[tensorrt]`, as modelwright.toml has it. Raises ProjectError naming the field."""
    top = _Table(table, f"{file}: tensorrt", longest_s)
    inner = _Table(top.data.get("kubernetes", {}), f"{file}: tensorrt.kubernetes", longest_s)
    top.check_known("plan_builder", "timeout", "image", "kubernetes")
    inner.check_known(*(name.removesuffix("_s") for name in KubernetesPlace.__dataclass_fields__))
    default = KubernetesPlace()
    kubernetes = KubernetesPlace(
        gpus=inner.texts("gpus", _CAPABILITY, "a compute capability such as 8.9", _LABEL, GPUS_HINT),
        context=inner.text("context", _ANY, "the name of a context"),
        namespace=inner.text("namespace", _NAME, "the name of a namespace"),
        service_account=inner.text("service_account", _NAME, "the name of a service account"),
        image_pull_secret=inner.text("image_pull_secret", _NAME, "the name of a secret"),
        runtime_class=inner.text("runtime_class", _NAME, "the name of a runtime class"),
        node_selector=inner.texts("node_selector", _KEY, "a label", _LABEL, 'write: node_selector = { pool = "gpu" }'),
        tolerations=inner.list("tolerations", _KEY, "keys of taints"),
        cpu=inner.text("cpu", _QUANTITY, "a quantity such as 2", default.cpu),
        memory=inner.text("memory", _QUANTITY, "a quantity such as 8Gi", default.memory),
        storage=inner.text("storage", _QUANTITY, "a quantity such as 20Gi", default.storage),
        start_timeout_s=inner.seconds("start_timeout", default.start_timeout_s),
    )
    return PlanPlaces(
        plan_builder=top.choice("plan_builder", PLAN_BUILDERS),
        timeout_s=top.seconds("timeout", PlanPlaces.timeout_s),
        image=top.text("image", _ANY, "the name of an image"),
        compose_file=root / COMPOSE_FILE,
        kubernetes=kubernetes,
    )


class _Table:
    """A table of modelwright.toml whose fields are checked as they are read."""

    def __init__(self, data: Any, where: str, longest_s: float) -> None:
        if not isinstance(data, dict):
            raise ProjectError(f"{where}: a table is needed", 'write: [tensorrt] and plan_builder = "container"')
        self.data: dict[str, Any] = data
        self.where = where
        self.longest_s = longest_s

    def check_known(self, *known: str) -> None:
        for key in self.data:
            if key not in known:
                raise ProjectError(f"{self.where}.{key}: unknown field", did_you_mean(key, known))

    def choice(self, name: str, known: tuple[str, ...]) -> Any:
        value = self.data.get(name, known[0])
        if value not in known:
            hint = did_you_mean(str(value), known)
            raise ProjectError(f"{self.where}.{name}: one of {', '.join(known)} is needed, got {value!r}", hint)
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self.data.get(name, default)
        if type(value) not in (int, float) or not 0 < value <= self.longest_s:
            raise ProjectError(f"{self.where}.{name}: seconds are needed, got {value!r}", f"write: {name} = 3600")
        return float(value)

    def text(self, name: str, form: re.Pattern[str], what: str, default: str = "") -> str:
        value = self.data.get(name, default)
        if not isinstance(value, str) or (name in self.data and not form.fullmatch(value)):
            raise ProjectError(f"{self.where}.{name}: {what} is needed, got {value!r}")
        return value

    def list(self, name: str, form: re.Pattern[str], what: str) -> tuple[str, ...]:
        value = self.data.get(name, [])
        if not isinstance(value, list) or not all(_is(item, form) for item in value):
            raise ProjectError(f"{self.where}.{name}: a list of {what} is needed, got {value!r}")
        return tuple(value)

    def texts(self, name: str, key: re.Pattern[str], what: str, form: re.Pattern[str], hint: str) -> dict[str, str]:
        value = self.data.get(name, {})
        if not isinstance(value, dict):
            raise ProjectError(f"{self.where}.{name}: a table is needed, got {value!r}", hint)
        for given, item in value.items():
            if not key.fullmatch(given):
                raise ProjectError(f"{self.where}.{name}: {given!r} is not {what}", hint)
            if not _is(item, form):
                raise ProjectError(f"{self.where}.{name}.{given}: the value of a label is needed, got {item!r}", hint)
        return dict(value)


def _is(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None
