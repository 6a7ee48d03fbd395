"""What the step that makes a version's files learnt of them."""

from __future__ import annotations

from pydantic import Field, JsonValue

from modelwright.facts.part import Boolean, Facts, Integer, JsonObject, Number, Part
from modelwright.facts.plan import HardwareCompatibility, PlanProfile, PlanSidecar, PlanTensor
from modelwright.onnx.signature import Signature, Value


class OnnxTensor(Part):
    """An input or output as an ONNX file declares it, with the batch dimension."""

    name: str
    dtype: str  # Triton's name: "FP32"
    dims: tuple[Integer | str, ...]  # -1: dynamic, without a name

    @classmethod
    def of(cls, value: Value) -> OnnxTensor:
        return cls(name=value.name, dtype=value.dtype or "", dims=value.dims or ())


class OnnxSignature(Part):
    """What an ONNX file that can be served declares."""

    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    opset: Integer  # of the ai.onnx domain
    ir_version: Integer
    external: tuple[str, ...] = ()  # files with weights, relative to the model's folder

    @classmethod
    def of(cls, signature: Signature) -> OnnxSignature:
        return cls(
            inputs=tuple(map(OnnxTensor.of, signature.inputs)),
            outputs=tuple(map(OnnxTensor.of, signature.outputs)),
            opset=signature.opset,
            ir_version=signature.ir_version or 0,
            external=signature.external,
        )


class TensorRtBuild(Part):
    """What a TensorRT plan was built by and for: it loads nowhere else, unless it is version-compatible."""

    version: str  # of TensorRT: "10.13.0"
    compute_capability: str  # of the GPU: "9.0"
    version_compatible: Boolean = False
    hardware_compatibility: HardwareCompatibility = "none"
    gpu: str = ""  # its product name
    place: str = ""  # where it was built: local, container, kubernetes
    profiles: tuple[PlanProfile, ...] = ()
    inputs: tuple[PlanTensor, ...] = ()
    outputs: tuple[PlanTensor, ...] = ()
    layers: Integer | None = None
    layers_by_type: dict[str, Integer] = Field(default_factory=dict)
    memory_bytes: Integer | None = None  # of the GPU, for one execution context
    build_s: Number | None = None

    @classmethod
    def of(cls, sidecar: PlanSidecar, place: str) -> TensorRtBuild:
        known = sidecar.model_dump(include=set(cls.model_fields) & set(PlanSidecar.model_fields))
        return cls.model_validate(known | {"version": sidecar.tensorrt, "place": place})


class Made(Facts):
    """Facts of a version's files, whatever its source kind is."""

    signature: OnnxSignature | None = None
    tensorrt: TensorRtBuild | None = None  # of a plan
    plans: dict[str, TensorRtBuild] = Field(default_factory=dict)  # file → plan, where a version has several
    # An ensemble's: name → version digest when this version was made.
    composing_models: dict[str, str] = Field(default_factory=dict)
    requirements: tuple[str, ...] = ()  # packages vendored beside a Python model
    dependencies_left_out: tuple[str, ...] = ()  # what these depend on and is not vendored, a line each
    prebuilt: Boolean = False  # made elsewhere, and taken as it is
    details: JsonObject = Field(default_factory=dict)  # what only its source kind knows

    @classmethod
    def from_schema_1(cls, data: JsonValue) -> JsonValue:
        if not isinstance(data, dict) or "members" not in data:
            return data
        return {"composing_models" if name == "members" else name: value for name, value in data.items()}
