"""Where TensorRT plans can be built: what is wanted, what a place is, and whether this machine is one.

A place is chosen while the build is planned, since TensorRT's version and the kind of GPU are part of a plan's key.
Nothing heavy is imported to find out: versions come from package metadata, GPUs from the driver's library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from modelwright import tools
from modelwright.gpus import Gpu, visible_gpus
from modelwright.programs import Ran, run_program
from modelwright.project.plan_places import PlanPlaces
from modelwright.triton.plans import loads, tensorrt_in
from modelwright.triton.releases import Release

LOCAL = "local"
INSTALL = "pip install 'modelwright[tensorrt]'"
# A CUDA major version has a distribution of its own, and `tensorrt` brings one of them.
_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu12-bindings", "tensorrt-cu13-bindings")


@dataclass(frozen=True)
class WantedPlans:
    """What the plans of one version need."""

    release: Release
    compute_capabilities: tuple[str, ...] = ()  # a plan for each; empty: for the GPU that is there
    version_compatible: bool = False


@dataclass(frozen=True)
class Place:
    """Where the plans of a version are built. All but `why` is part of their key."""

    name: str  # local | container | kubernetes
    builder: str  # module:function that sends a request there: (inside, out, request, context)
    tensorrt: str  # the version there; "" where only the image says it
    compute_capabilities: tuple[str, ...]  # of the plans, at least one
    image: str = ""  # of a container; with its digest where it is known
    why: str = ""  # for `plan` and `doctor`: "NVIDIA L4 (8.9), TensorRT 10.13.0.35"


@dataclass(frozen=True)
class NoPlace:
    reasons: Mapping[str, str]  # place → why not, as a sentence without its full stop

    @property
    def text(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())


@dataclass(frozen=True)
class PlanMachine:
    """What is asked of this machine; tests replace the functions."""

    gpus: Callable[[], tuple[Gpu, ...]] = visible_gpus
    version: Callable[[str], str | None] = field(default=tools.version)  # of a distribution or import name
    run: Callable[[Sequence[str], float], Ran] = run_program  # a program, for at most so many seconds


Finder: TypeAlias = Callable[[WantedPlans, PlanPlaces, PlanMachine], "Place | str"]  # or why not


def tensorrt_version(machine: PlanMachine) -> str | None:
    """The TensorRT that is installed here; None where none is."""
    return next((found for name in _DISTRIBUTIONS if (found := machine.version(name))), None)


def find(wanted: WantedPlans, places: PlanPlaces, machine: PlanMachine) -> Place | str:
    """This machine, where it has TensorRT and the GPUs."""
    version = tensorrt_version(machine)
    if version is None:
        return f"TensorRT is not installed ({INSTALL})"
    if machine.version("polygraphy") is None:
        return f"TensorRT {version} is installed, and Polygraphy is not ({INSTALL})"
    here = gpus_for(wanted, machine)
    if isinstance(here, str):
        return f"TensorRT {version} is installed, and {here}"
    release = wanted.release.name
    if loads(version, wanted.version_compatible, tensorrt_in(release)) is False:
        return f"TensorRT {version} is installed, and Triton {release} loads plans of {tensorrt_in(release)} only"
    why = f"{named(here)}, TensorRT {version}"
    return Place(LOCAL, "modelwright.steps.plan_local:build", version, tuple(here), why=why)


def gpus_for(wanted: WantedPlans, machine: PlanMachine) -> dict[str, str] | str:
    """{compute capability: name} of the GPUs of this machine that build the plans; or why it cannot be here."""
    gpus = machine.gpus()
    if not gpus:
        return "CUDA shows no GPU on this machine"
    here = {gpu.compute_capability: gpu.name for gpu in reversed(gpus)}
    chosen = wanted.compute_capabilities or (gpus[0].compute_capability,)
    missing = [capability for capability in chosen if capability not in here]
    if missing:
        have = " and ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in gpus)
        return f"plans are wanted for compute capability {', '.join(missing)}, and the GPUs here are {have}"
    return {capability: here[capability] for capability in chosen}


def named(gpus: Mapping[str, str]) -> str:
    """`NVIDIA L4 (8.9)`"""
    return ", ".join(f"{name} ({capability})" for capability, name in gpus.items())
