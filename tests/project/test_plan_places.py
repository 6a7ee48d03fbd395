"""`[tensorrt]` of modelwright.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.errors import ProjectError
from modelwright.project.plan_places import PlanPlaces
from modelwright.project.project import load


def read(folder: Path, text: str) -> PlanPlaces:
    (folder / "modelwright.toml").write_text(f'triton = "26.07"\n{text}')
    return load(folder).plan_places


def test_without_the_table_plans_are_built_where_it_is_possible_with_nvidias_image(tmp_path: Path) -> None:
    places = read(tmp_path, "")
    assert places == PlanPlaces(compose_file=tmp_path / "docker-compose.yml")
    assert places.plan_builder == "auto"
    assert places.image_for("26.07") == "nvcr.io/nvidia/tensorrt:26.07-py3"


def test_every_field_is_read(tmp_path: Path) -> None:
    places = read(
        tmp_path,
        """
        [tensorrt]
        plan_builder = "kubernetes"
        timeout = 7200
        image = "registry.lab:5000/plans:1"
        [tensorrt.kubernetes]
        context = "lab/admin@cluster"
        namespace = "ml"
        gpus = { "8.9" = "NVIDIA-L4", "8.0" = "NVIDIA-A100-SXM4-80GB" }
        node_selector = { "pool.example.com/kind" = "gpu" }
        tolerations = ["sku"]
        service_account = "builder"
        image_pull_secret = "ngc"
        runtime_class = "nvidia"
        cpu = "500m"
        memory = "16Gi"
        storage = "100Gi"
        start_timeout = 60.5
        """,
    )
    assert (places.plan_builder, places.timeout_s) == ("kubernetes", 7200.0)
    assert places.image_for("26.07") == "registry.lab:5000/plans:1"
    kubernetes = places.kubernetes
    assert kubernetes.gpus == {"8.9": "NVIDIA-L4", "8.0": "NVIDIA-A100-SXM4-80GB"}
    assert (kubernetes.context, kubernetes.namespace, kubernetes.service_account) == (
        "lab/admin@cluster",
        "ml",
        "builder",
    )
    assert (kubernetes.image_pull_secret, kubernetes.runtime_class) == ("ngc", "nvidia")
    assert (kubernetes.node_selector, kubernetes.tolerations) == ({"pool.example.com/kind": "gpu"}, ("sku",))
    assert (kubernetes.cpu, kubernetes.memory, kubernetes.storage) == ("500m", "16Gi", "100Gi")
    assert kubernetes.start_timeout_s == 60.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt = 1", "tensorrt: a table is needed"),
        ("[tensorrt]\nplan_bilder = 1", "tensorrt.plan_bilder: unknown field\n.*'plan_builder'"),
        ("[tensorrt]\nplan_builder = 'cluster'", "tensorrt.plan_builder: one of auto, local, container, kubernetes, none"),
        ("[tensorrt]\ntimeout = 0", "tensorrt.timeout: seconds are needed, got 0"),
        ("[tensorrt]\ntimeout = true", "tensorrt.timeout: seconds are needed, got True"),
        ("[tensorrt]\nimage = ''", "tensorrt.image: the name of an image is needed"),
        ("[tensorrt]\nkubernetes = []", "tensorrt.kubernetes: a table is needed"),
        ("[tensorrt.kubernetes]\nname = 'x'", "tensorrt.kubernetes.name: unknown field"),
        ("[tensorrt.kubernetes]\nnamespace = 'ML team'", "kubernetes.namespace: the name of a namespace is needed"),
        ("[tensorrt.kubernetes]\ngpus = ['NVIDIA-L4']", "kubernetes.gpus: a table is needed"),
        ("[tensorrt.kubernetes]\ngpus = {sm_89 = 'NVIDIA-L4'}", "gpus: 'sm_89' is not a compute capability such as 8.9"),
        ("[tensorrt.kubernetes]\ngpus = {'8.9' = 'NVIDIA L4'}", r"gpus.8.9: the value of a label is needed"),
        ("[tensorrt.kubernetes]\nnode_selector = {'a b' = 'c'}", "node_selector: 'a b' is not a label"),
        ("[tensorrt.kubernetes]\ntolerations = 'sku'", "tolerations: a list of keys of taints is needed"),
        ("[tensorrt.kubernetes]\nmemory = '8 GB'", "memory: a quantity such as 8Gi is needed, got '8 GB'"),
        ("[tensorrt.kubernetes]\nstart_timeout = -1", "start_timeout: seconds are needed, got -1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProjectError, match=f"modelwright.toml: .*{message}"):
        read(tmp_path, f"{text}\n")
