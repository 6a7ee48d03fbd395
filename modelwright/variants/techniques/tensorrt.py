"""tensorrt: the graph as a TensorRT plan, built where TensorRT and a GPU are.

Without such a place, TensorRT for RTX checks that TensorRT takes the graph, where modelwright[tensorrt-check] is
installed; the version is skipped either way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from modelwright.errors import SpecError
from modelwright.facts.plan import HardwareCompatibility, PlanOptions
from modelwright.kinds.kind import Needs
from modelwright.kinds.step import Step, StepFunction
from modelwright.project.spec import Builder, StepOptions
from modelwright.variants.placement import place
from modelwright.variants.places import NoPlace, Place, WantedPlans
from modelwright.variants.plan_config import complete_plan_config
from modelwright.variants.profiles import ProfileSpec, resolved, shaped_inputs
from modelwright.variants.technique import PLAIN, Skipped, Stage, Technique
from modelwright.variants.techniques.quantise import QuantiseOptions

CHECK = "tensorrt_check"
_BUILD = StepFunction("tensorrt", "modelwright.steps.tensorrt:run")
_CHECK = StepFunction(CHECK, "modelwright.steps.tensorrt:check")
_ASK = StepFunction("tensorrt_requests", "modelwright.steps.tensorrt_requests:run")
_VERIFY = StepFunction("verify_plan", "modelwright.steps.verify_plan:run")
_QAT = "qat"
_RTX = "tensorrt_rtx"
_CHECK_TOOLS = (_RTX, "polygraphy")
RTX = Needs(
    name="tensorrt-check",
    modules=("tensorrt_rtx", "polygraphy"),
    install="modelwright[tensorrt-check]",
)


def _capability(value: str) -> str:
    major, dot, minor = value.partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal() and len(minor) == 1 and major[0] != "0"):
        raise ValueError(f"{value!r} is not a compute capability: write it as text, '8.9'")
    return value


Capability = Annotated[str, AfterValidator(_capability)]


class TensorRtOptions(StepOptions):
    """How the plan is built. Every field is part of the plan's key."""

    profiles: tuple[ProfileSpec, ...] = Field(
        (), description="Shapes that the plan takes; without any, one profile from serving.max_batch_size."
    )
    compute_capabilities: tuple[Capability, ...] = Field(
        (),
        description="A plan for each of these kinds of GPU, in one version; without any, for the GPU that builds it.",
    )
    workspace_mb: int | None = Field(None, ge=1, description="Scratch memory that a layer may use, 10^6 bytes.")
    builder_level: int | None = Field(None, ge=0, le=5, description="How long TensorRT looks for faster kernels.")
    version_compatible: bool = Field(
        False, description="Loads with later TensorRT versions of the same major one, if the server allows it."
    )
    hardware_compatibility: HardwareCompatibility = Field(
        "none", description="ampere_plus: loads on every GPU from compute capability 8.0 on, and is slower."
    )
    sparsity: bool = Field(False, description="Use kernels for 2:4 sparse weights where they are faster.")
    tf32: bool = Field(False, description="Multiply float32 matrices in TF32: faster, with 10 bits of mantissa.")

    @model_validator(mode="before")
    @classmethod
    def _no_precision(cls, data: Any) -> Any:
        for name in ("precision", "fp16", "bf16", "int8"):
            if isinstance(data, dict) and name in data:
                wanted = data[name] if name == "precision" else name
                step = {"int8": "quantise"}.get(str(wanted), str(wanted))
                raise ValueError(
                    f"{name}: the graph says what is computed in which precision, as TensorRT 11 demands: write "
                    + ("steps: [tensorrt]" if step == "fp32" else f"steps: [{step}, tensorrt]")
                )
        return data

    @model_validator(mode="after")
    def _one_each(self) -> TensorRtOptions:
        if len(set(self.compute_capabilities)) < len(self.compute_capabilities):
            raise ValueError("compute_capabilities: one stands there twice")
        if self.hardware_compatibility == "ampere_plus":
            old = [text for text in self.compute_capabilities if int(text.partition(".")[0]) < 8]
            if old:
                raise ValueError(f"hardware_compatibility: ampere_plus begins at 8.0, and {old[0]} is older")
        return self

    @property
    def plan_options(self) -> PlanOptions:
        """What a builder of plans is told."""
        return PlanOptions(
            workspace_bytes=self.workspace_mb * 1_000_000 if self.workspace_mb else None,
            builder_level=self.builder_level,
            version_compatible=self.version_compatible,
            hardware_compatibility=self.hardware_compatibility,
            sparsity=self.sparsity,
            tf32=self.tf32,
        )

    @property
    def files(self) -> dict[str, str]:
        """{compute capability: file} of a version with a plan for each of several; empty where there is one plan."""
        several = self.compute_capabilities if len(self.compute_capabilities) > 1 else ()
        return {capability: f"model_{capability}.plan" for capability in several}


def _step(stage: Stage, options: TensorRtOptions) -> tuple[Step, ...] | Skipped:
    recipe = stage.recipe
    spec = recipe.builder.spec
    where = f"{recipe.builder.file}: variant {recipe.builder.name}: tensorrt"
    if spec.gates.latency is not None:
        hint = "remove latency from the gates of this variant; modelwright bench and load ab measure it in a server"
        raise SpecError(f"{where}: gates.latency is measured in onnxruntime, and a plan does not run there", hint)
    _check_int8(recipe.builder, where)
    inputs = shaped_inputs(spec)
    if inputs is not None:
        resolved(options.profiles, inputs, spec, f"{where}.profiles")
    wanted = WantedPlans(recipe.target, options.compute_capabilities, options.version_compatible)
    found = place(wanted, recipe.plan_places)
    if isinstance(found, NoPlace):
        return _skipped(stage, options, found)
    ask = _ask_step(stage, options)
    build = stage.step(
        _BUILD,
        options,
        config={"place": _key_of(found), "release": recipe.target.name, "max_batch_size": spec.max_batch_size},
        needs={"asked": ask.id, PLAIN: stage.plain},
    )
    return ask, replace(build, where=f"{found.name}: {found.why}")


def _check_int8(builder: Builder, where: str) -> None:
    """TensorRT has INT8 with ranges around zero that are known before."""
    for step in builder.variant.techniques if builder.variant else ():
        wrong = "unsigned activations" if step.name == _QAT else ""
        if isinstance(step.options, QuantiseOptions) and step.options.mode == "dynamic":
            wrong = "mode: dynamic"
        elif isinstance(step.options, QuantiseOptions) and step.options.activations != "symmetric":
            wrong = f"activations: {step.options.activations}"
        if wrong:
            hint = "write {quantise: {mode: static, activations: symmetric}} before it"
            raise SpecError(f"{where}: {step.name} makes INT8 that TensorRT does not take, by {wrong}", hint)


def _key_of(found: Place) -> dict[str, Any]:
    return {
        "name": found.name,
        "builder": found.builder,
        "tensorrt": found.tensorrt,
        "compute_capabilities": list(found.compute_capabilities),
        "image": found.image,
    }


def _ask_step(stage: Stage, options: TensorRtOptions) -> Step:
    """What the plan will be asked when it is verified: `evaluate` runs here, and the plan elsewhere."""
    step = stage.step(_ASK, options, config={"max_batch_size": stage.recipe.builder.spec.max_batch_size}, gated=True)
    return replace(step, name=_ASK.name)


def _skipped(stage: Stage, options: TensorRtOptions, nowhere: NoPlace) -> Skipped:
    from modelwright import tools

    if any(tools.version(name) is None for name in _CHECK_TOOLS):
        return Skipped(
            f"not built ({nowhere.text}); not checked without a GPU either, for which '{RTX.install}' is not installed"
        )
    config = {"release": stage.recipe.target.name, "max_batch_size": stage.recipe.builder.spec.max_batch_size}
    check = stage.step(_CHECK, options, config=config, tools=_CHECK_TOOLS, needs={PLAIN: stage.plain})
    return Skipped(
        f"checked, not built ({nowhere.text}): TensorRT for RTX {tools.version(_RTX)} shows that the graph parses, that"
        " the profiles fit it and that an engine can be built; not what a plan answers, and not how fast",
        (replace(check, name=CHECK),),
    )


def _complete(config: Any, options: TensorRtOptions, where: str) -> None:
    complete_plan_config(config, options.files, max(1, len(options.profiles)), where)


TECHNIQUE = Technique(
    name="tensorrt",
    options=TensorRtOptions,
    summary="a TensorRT plan of the graph, in the precision that the graph has",
    works_on="graph",
    step=_step,
    lossy=False,
    backend="tensorrt",
    verification=_VERIFY,
    complete_config=_complete,
)
