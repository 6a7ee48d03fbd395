"""NVIDIA's container on this machine, as a place for plans: it needs a GPU here, and Docker with compose."""

from __future__ import annotations

import json
from pathlib import Path

from modelwright.fsops import read_text
from modelwright.project.plan_places import COMPOSE_SERVICE, PlanPlaces
from modelwright.variants.places import Place, PlanMachine, WantedPlans, gpus_for, named

CONTAINER = "container"
_PATIENCE_S = 5.0  # a docker client waits longer for an engine that hangs


def find(wanted: WantedPlans, places: PlanPlaces, machine: PlanMachine) -> Place | str:
    """The container, where this machine can run it."""
    gpus = gpus_for(wanted, machine)
    if isinstance(gpus, str):
        return gpus
    problem = _without_service(places.compose_file) or _without_docker(machine)
    if problem:
        return problem
    image = places.image_for(wanted.release.name)
    builder = "modelwright.steps.plan_places.container:build"
    return Place(CONTAINER, builder, "", tuple(gpus), image, why=f"{named(gpus)}, in {image}")


def _without_service(file: Path) -> str:
    import yaml

    try:
        services = yaml.safe_load(read_text(file))["services"]
        known = COMPOSE_SERVICE in services
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return f"{file.name} is not there, or cannot be read (`modelwright init` writes one)"
    return (
        "" if known else f"{file.name} has no service {COMPOSE_SERVICE} (`modelwright init` writes a file that has it)"
    )


def _without_docker(machine: PlanMachine) -> str:
    engine = machine.run(["docker", "info", "--format", "{{json .}}"], _PATIENCE_S)
    if engine.code is None and engine.error.startswith("no docker"):
        return "there is no docker command (install Docker Engine and the NVIDIA Container Toolkit)"
    if engine.code != 0:
        return f"Docker does not answer: {engine.last_line}"
    # Docker takes GPUs from a runtime, from CDI, or by the toolkit's hook, which `docker info` does not show.
    if not _shows_gpus(engine.output) and machine.run(["nvidia-ctk", "--version"], _PATIENCE_S).code != 0:
        return "Docker has no NVIDIA runtime (install the NVIDIA Container Toolkit, and restart Docker)"
    compose = (["docker", "compose", "version"], ["docker-compose", "version"])
    if all(machine.run(command, _PATIENCE_S).code != 0 for command in compose):
        return "there is neither docker compose nor docker-compose (install Docker's compose plugin)"
    return ""


def _shows_gpus(info: str) -> bool:
    try:
        data = json.loads(info)
        runtimes, devices = data.get("Runtimes") or {}, data.get("DiscoveredDevices") or []
        return "nvidia" in runtimes or any(str(device.get("ID", "")).startswith("nvidia.com/gpu") for device in devices)
    except (ValueError, AttributeError):
        return False
