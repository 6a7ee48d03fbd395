"""Where plans can be built: each place, and why it cannot be one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from modelwright.gpus import Gpu
from modelwright.programs import Ran
from modelwright.project.plan_places import KubernetesPlace, PlanPlaces
from modelwright.triton.releases import release
from modelwright.variants.placement import place
from modelwright.variants.places import NoPlace, Place, PlanMachine, WantedPlans
from modelwright.variants.places_kubernetes import problems
from tests.conftest import ROOT

L4, T4 = Gpu(0, "NVIDIA L4", "8.9"), Gpu(1, "NVIDIA T4", "7.5")
WANTED = WantedPlans(release("26.07"))
IMAGE = "nvcr.io/nvidia/tensorrt:26.07-py3"
CLUSTER = KubernetesPlace(gpus={"8.9": "NVIDIA-L4", "8.0": "NVIDIA-A100-SXM4-80GB"}, namespace="ml")
PLACES = PlanPlaces(compose_file=ROOT / "docker-compose.yml", kubernetes=CLUSTER)
DOCKER = {
    "docker info": Ran(0, json.dumps({"Runtimes": {"runc": {}, "nvidia": {}}})),
    "docker compose": Ran(0, "2.40.0"),
    "kubectl config current-context": Ran(0, "lab\n"),
}


def machine(*gpus: Gpu, **answers: Ran | None) -> PlanMachine:
    """A machine with Docker and kubectl, but for the programs that answer differently; None: not installed."""
    known: Mapping[str, Ran | None] = {**DOCKER, **{name.replace("_", " "): ran for name, ran in answers.items()}}

    def run(command: Sequence[str], timeout_s: float) -> Ran:
        found = [name for name in known if " ".join(command).startswith(name)]
        return (known[max(found, key=len)] if found else None) or Ran(None, error=f"no {command[0]} command")

    return PlanMachine(lambda: gpus, lambda name: None, run)


def with_tensorrt(*gpus: Gpu) -> PlanMachine:
    return replace(machine(*gpus), version=lambda name: "11.0.0.114")


def reasons(places: PlanPlaces, machine: PlanMachine, wanted: WantedPlans = WANTED) -> Mapping[str, str]:
    found = place(wanted, places, machine)
    assert isinstance(found, NoPlace), found
    return found.reasons


def chosen(name: str) -> PlanPlaces:
    return replace(PLACES, plan_builder=name)  # type: ignore[arg-type]


# --- which one --------------------------------------------------------------------------------------------------------


def test_this_machine_comes_first() -> None:
    found = place(WANTED, PLACES, with_tensorrt(L4))
    assert isinstance(found, Place)
    assert (found.name, found.tensorrt, found.why) == ("local", "11.0.0.114", "NVIDIA L4 (8.9), TensorRT 11.0.0.114")


def test_without_tensorrt_the_container_builds() -> None:
    found = place(WANTED, PLACES, machine(L4))
    assert isinstance(found, Place)
    assert (found.name, found.image, found.compute_capabilities) == ("container", IMAGE, ("8.9",))
    assert found.why == f"NVIDIA L4 (8.9), in {IMAGE}"


def test_a_cluster_builds_only_where_it_is_asked_for() -> None:
    found = reasons(PLACES, machine())
    assert list(found) == ["local", "container", "kubernetes"]
    assert found["local"] == "TensorRT is not installed (pip install 'modelwright[tensorrt]')"
    assert found["container"] == "CUDA shows no GPU on this machine"
    assert found["kubernetes"].startswith("only where it is asked for: --plan-builder kubernetes")
    asked = place(WANTED, chosen("kubernetes"), machine())
    assert isinstance(asked, Place)
    assert (asked.name, asked.image, asked.compute_capabilities) == ("kubernetes", IMAGE, ("8.9",))
    assert asked.why == f"a Job on NVIDIA-L4 (8.9); context lab, namespace ml; {IMAGE}"


def test_what_is_asked_for_is_not_replaced_by_another_place() -> None:
    found = reasons(chosen("local"), machine(L4))
    assert list(found) == ["local"]
    assert reasons(chosen("none"), with_tensorrt(L4)) == {"plan builder": "none was chosen"}


def test_the_project_names_the_image() -> None:
    found = place(WANTED, replace(PLACES, image="registry.lab/plans@sha256:1"), machine(L4))
    assert isinstance(found, Place)
    assert found.image == "registry.lab/plans@sha256:1"


@pytest.mark.parametrize("name", ["container", "kubernetes"])
def test_a_version_for_several_gpus_needs_them_all(name: str) -> None:
    wanted = replace(WANTED, compute_capabilities=("8.9", "7.5"))
    if name == "container":
        found = place(wanted, PLACES, machine(L4, T4))
        assert isinstance(found, Place)
        assert found.compute_capabilities == ("8.9", "7.5")
    message = {
        "container": "plans are wanted for compute capability 7.5, and the GPUs here are NVIDIA L4 (8.9)",
        "kubernetes": "tensorrt.kubernetes.gpus names no GPU of compute capability 7.5",
    }[name]
    assert reasons(chosen(name), machine(L4), wanted)[name].startswith(message)


# --- why not ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"docker_info": None}, "there is no docker command (install Docker Engine"),
        ({"docker_info": Ran(1, "", "Cannot connect to the Docker daemon")}, "Docker does not answer: Cannot connect"),
        ({"docker_info": Ran(None, error="no answer within 5 s")}, "Docker does not answer: no answer within 5 s"),
        ({"docker_info": Ran(0, '{"Runtimes": {"runc": {}}}')}, "Docker has no NVIDIA runtime (install the NVIDIA"),
        ({"docker_info": Ran(0, "WARNING: no swap")}, "Docker has no NVIDIA runtime"),
        ({"docker_compose": None}, "there is neither docker compose nor docker-compose"),
    ],
    ids=["no docker", "no engine", "hangs", "no runtime", "no JSON", "no compose"],
)
def test_why_the_container_cannot(answers: dict[str, Ran | None], message: str) -> None:
    assert reasons(chosen("container"), machine(L4, **answers))["container"].startswith(message)


def test_the_toolkit_is_enough_where_docker_shows_no_runtime() -> None:
    given = machine(L4, docker_info=Ran(0, "{}"), **{"nvidia-ctk --version": Ran(0, "1.17.8")})
    assert isinstance(place(WANTED, PLACES, given), Place)


def test_gpus_may_come_through_cdi_and_compose_may_be_the_old_one() -> None:
    info = Ran(0, json.dumps({"Runtimes": {}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]}))
    given = machine(L4, docker_info=info, docker_compose=None, **{"docker-compose version": Ran(0)})
    assert isinstance(place(WANTED, PLACES, given), Place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "docker-compose.yml is not there, or cannot be read (`modelwright init` writes one)"),
        ("services: [", "docker-compose.yml is not there, or cannot be read"),
        ("services: {triton: {}}", "docker-compose.yml has no service plan-builder (`modelwright init` writes"),
    ],
    ids=["no file", "no YAML", "an older file"],
)
def test_a_project_without_the_service_says_so(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "docker-compose.yml"
    if text is not None:
        file.write_text(text)
    places = replace(chosen("container"), compose_file=file)
    assert reasons(places, machine(L4))["container"].startswith(message)


@pytest.mark.parametrize(
    ("change", "answers", "message"),
    [
        ({"gpus": {}}, {}, "modelwright.toml names no GPU of the cluster (write: [tensorrt.kubernetes]"),
        ({}, {"kubectl_config_current-context": None}, "no kubectl command (install kubectl)"),
        ({}, {"kubectl_config_current-context": Ran(1, "", "error: current-context is not set")}, "kubectl has no current context"),
    ],
    ids=["no GPUs", "no kubectl", "no context"],
)  # fmt: skip
def test_why_the_cluster_cannot(change: dict[str, object], answers: dict[str, Ran | None], message: str) -> None:
    places = replace(chosen("kubernetes"), kubernetes=replace(CLUSTER, **change))  # type: ignore[arg-type]
    assert reasons(places, machine(**answers))["kubernetes"].startswith(message)


# --- the cluster, when it is asked ------------------------------------------------------------------------------------


def asked(answer: Callable[[str], Ran]) -> list[tuple[str, str]]:
    return list(problems(CLUSTER, lambda command, _: answer(" ".join(command))))


def test_a_cluster_that_allows_all_and_has_the_nodes_lacks_nothing() -> None:
    assert asked(lambda line: Ran(0, "yes\n" if "can-i" in line else "node/a\n")) == []


def test_what_the_account_may_not_do_is_named() -> None:
    def answer(line: str) -> Ran:
        return Ran(1, "no\n") if "subresource=exec" in line else Ran(0, "yes\n" if "can-i" in line else "node/a\n")

    named = [what for what, _ in asked(answer)]
    assert named == ["this account may not get pods/exec", "this account may not create pods/exec"]


def test_a_product_that_no_node_has_is_named() -> None:
    def answer(line: str) -> Ran:
        return Ran(0, "yes\n" if "can-i" in line else "" if "A100" in line else "node/a\n")

    (found,) = asked(answer)
    assert found == (
        "no node has nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB",
        "see: kubectl get nodes -L nvidia.com/gpu.product",
    )


def test_an_account_that_may_not_see_nodes_is_no_problem() -> None:
    assert asked(lambda line: Ran(0, "yes\n") if "can-i" in line else Ran(1, "", "nodes is forbidden")) == []


def test_a_cluster_that_does_not_answer_is_asked_once() -> None:
    found = asked(lambda line: Ran(1, "", "Unable to connect to the server: no such host"))
    assert found == [
        ("the cluster does not answer: Unable to connect to the server: no such host", "try: kubectl get pods")
    ]
