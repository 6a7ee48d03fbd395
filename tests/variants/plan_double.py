"""A plan builder without TensorRT: a plan is the header that TensorRT writes, and the digest of its request. It answers
as the graph does in onnxruntime. What happens around a plan builder is real: folders, checks, verification, publish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.digest import canonical, sha256, sha256_file
from modelwright.facts.plan import (
    ANSWERS,
    ASKED,
    FAILED,
    GRAPH,
    PLAN,
    REQUEST,
    SIDECAR,
    TIMING_CACHE,
    PlanFailure,
    PlanRequest,
    PlanSidecar,
)
from modelwright.gpus import Gpu
from modelwright.project.plan_places import PlanPlaces
from modelwright.steps.context import StepContext
from modelwright.triton.tensors import load_tensors, save_tensors
from modelwright.variants import placement
from modelwright.variants.places import Place, PlanMachine, WantedPlans

TENSORRT = "11.0.0.114"  # what the target's container has is not known exactly
REFERENCE = "tests.variants.plan_double:build"
L4, A100 = Gpu(0, "NVIDIA L4", "8.9"), Gpu(1, "NVIDIA A100", "8.0")


@dataclass
class PlanBuilder:
    """What the double does, and what it was asked for."""

    tensorrt: str = TENSORRT
    gpus: tuple[Gpu, ...] = (L4,)
    image: str = ""
    damage: Callable[[Path, PlanSidecar], PlanSidecar | None] | None = None  # (out, what it would say) → what it says
    failure: PlanFailure | None = None
    errors: dict[str, float] = field(default_factory=dict)  # compute capability → what it adds to every float
    requests: list[PlanRequest] = field(default_factory=list)
    caches: list[bool] = field(default_factory=list)  # whether each request came with a timing cache

    def find(self, wanted: WantedPlans, places: PlanPlaces, machine: PlanMachine) -> Place | str:
        chosen = wanted.compute_capabilities or (self.gpus[0].compute_capability,)
        missing = set(chosen) - {gpu.compute_capability for gpu in self.gpus}
        if missing:
            return f"there is no GPU of {', '.join(sorted(missing))}"
        return Place("local", REFERENCE, self.tensorrt, chosen, self.image, "the tests' double")

    def build(self, inside: Path, out: Path, request: PlanRequest) -> None:
        self.requests.append(request)
        self.caches.append((inside / TIMING_CACHE).is_file())
        assert PlanRequest.model_validate_json((inside / REQUEST).read_text()) == request
        assert sha256_file(inside / GRAPH) == request.onnx
        if self.failure:
            (out / FAILED).write_text(self.failure.model_dump_json())
            return
        gpu = next(gpu for gpu in self.gpus if gpu.compute_capability == request.compute_capability)
        plan = (
            b"ftrt"
            + bytes(20)
            + bytes(map(int, self.tensorrt.split(".")))
            + sha256(canonical(request.as_json())).encode()
        )
        (out / PLAN).write_bytes(plan)
        (out / TIMING_CACHE).write_bytes(b"measured")
        self._answer(inside, out, self.errors.get(request.compute_capability, 0.0))
        said: PlanSidecar | None = PlanSidecar(
            tensorrt=self.tensorrt,
            compute_capability=gpu.compute_capability,
            gpu=gpu.name,
            plan=sha256_file(out / PLAN),
            size_bytes=len(plan),
            profiles=request.profiles,
            inputs=(),
            outputs=(),
            layers=3,
            layers_by_type={"FP32": 3},
            build_s=1.5,
            version_compatible=request.options.version_compatible,
            hardware_compatibility=request.options.hardware_compatibility,
            answered=len(list((out / ANSWERS).iterdir())),
        )
        assert said is not None
        said = self.damage(out, said) if self.damage else said
        if said is not None:
            (out / SIDECAR).write_text(said.model_dump_json())

    def _answer(self, inside: Path, out: Path, error: float) -> None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(inside / GRAPH), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        (out / ANSWERS).mkdir()
        for file in sorted((inside / ASKED).glob("*.npz")):
            answers: dict[str, Any] = dict(zip(names, session.run(names, load_tensors(file)), strict=True))
            changed = {name: array + error if array.dtype.kind == "f" else array for name, array in answers.items()}
            save_tensors(
                out / ANSWERS / file.name, {name: array.astype(answers[name].dtype) for name, array in changed.items()}
            )


_current = PlanBuilder()


def build(inside: Path, out: Path, request: PlanRequest, context: StepContext) -> None:
    """What the place names."""
    _current.build(inside, out, request)


@contextmanager
def installed(builder: PlanBuilder) -> Iterator[PlanBuilder]:
    """The double as the only place that there is."""
    global _current
    before, finders = _current, dict(placement.FINDERS)
    _current = builder
    placement.FINDERS.clear()
    placement.FINDERS["local"] = builder.find
    try:
        yield builder
    finally:
        _current = before
        placement.FINDERS.clear()
        placement.FINDERS.update(finders)
