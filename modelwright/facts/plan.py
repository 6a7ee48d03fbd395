"""What a TensorRT plan is built from, and what its builder says of it: two folders, one to where a GPU is and one back.

A folder with a request holds, under the names below: the request; the graph, with its external weights beside it; what
the plan is asked once it is built; and the timing cache of earlier builds, if there is one. The folder of the result
holds the plan, its sidecar, what it answered, and the timing cache. The same code reads the one and writes the other on
this machine, in a container and on a node of a cluster.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelwright.facts.part import Boolean, Integer, Number, Part

REQUEST = "request.json"  # a PlanRequest
GRAPH = "model.onnx"
ASKED = "asked"  # 00000.npz, 00001.npz …: the inputs of one inference each
TIMING_CACHE = "timing.cache"

PLAN = "model.plan"
SIDECAR = "sidecar.json"  # a PlanSidecar
CHECK = "check.json"  # a PlanCheck, in place of plan and sidecar
ANSWERS = "answers"  # the outputs for each file of `asked`, under its name
FAILED = "failed.json"  # a PlanFailure, in place of all others

HardwareCompatibility = Literal["none", "ampere_plus", "same_compute_capability"]


class ShapeRange(Part):
    """The shapes of one input that a profile takes, batch included, and the one it is tuned for."""

    min: tuple[Integer, ...]
    opt: tuple[Integer, ...]
    max: tuple[Integer, ...]


class PlanProfile(Part):
    """An optimisation profile."""

    inputs: dict[str, ShapeRange]


class PlanOptions(Part):
    """How TensorRT builds. Precision is in the graph: networks are strongly typed."""

    workspace_bytes: Integer | None = None  # scratch memory that a layer may use; None: all of the GPU's
    builder_level: Integer | None = None  # 0 to 5; None: TensorRT's default, 3
    version_compatible: Boolean = False
    hardware_compatibility: HardwareCompatibility = "none"
    sparsity: Boolean = False  # kernels for 2:4 sparse weights, where they are faster
    tf32: Boolean = False  # float32 matrix products in 19 bits


class PlanRequest(Part):
    """All that one plan depends on: one model, for one kind of GPU."""

    model: str  # for messages
    release: str  # of Triton: its container has the TensorRT that must load the plan
    tensorrt: str  # the version that builds it: "10.7.0.23"; "" where what that container has is not known before
    compute_capability: str  # of the GPU: "8.9"
    onnx: str  # SHA-256 of the graph
    weights: dict[str, str] = Field(default_factory=dict)  # file beside the graph → SHA-256
    profiles: tuple[PlanProfile, ...]  # as many as the plan has, in order; at least one
    options: PlanOptions = PlanOptions()


class PlanTensor(Part):
    """An input or output of a plan."""

    name: str
    dtype: str  # Triton's name: "FP16"
    dims: tuple[Integer, ...]  # batch included; -1: any size that a profile takes


class PlanSidecar(Part):
    """What the builder of a plan says of it."""

    tensorrt: str  # that built it, as its bindings say: "10.7.0.23"
    compute_capability: str  # of the GPU that it was built on
    gpu: str  # its product name: "NVIDIA L4"
    plan: str  # SHA-256
    size_bytes: Integer
    profiles: tuple[PlanProfile, ...]
    inputs: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    layers: Integer | None = None  # None: TensorRT did not say
    layers_by_type: dict[str, Integer] = Field(default_factory=dict)  # data type of what a layer writes → layers
    memory_bytes: Integer | None = None  # of the GPU, for the activations of one execution context
    build_s: Number = 0.0
    version_compatible: Boolean = False
    hardware_compatibility: HardwareCompatibility = "none"
    answered: Integer = 0  # of the files in `asked`


class PlanCheck(Part):
    """What TensorRT for RTX said of a request, on a machine without a GPU: the graph parses, the profiles fit it, and
    an engine was built. The engine is not a plan: TensorRT does not load it."""

    version: str  # of TensorRT for RTX
    compute_capabilities: tuple[str, ...]  # that the engine was built for
    inputs: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    layers: Integer
    layers_by_type: dict[str, Integer] = Field(default_factory=dict)
    size_bytes: Integer = 0  # of the engine
    build_s: Number = 0.0


class RefusedNode(Part):
    """A node of the graph that TensorRT does not take."""

    name: str  # may be empty
    operator: str  # "Unique"
    reason: str  # TensorRT's own words


class PlanFailure(Part):
    """Why a plan was not built, as StepError has it."""

    message: str
    hint: str = ""
    nodes: tuple[RefusedNode, ...] = ()
