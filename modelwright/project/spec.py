"""builders/<model>/model.yaml → ModelSpec: frozen, checked, nothing derived yet.

The data that flows from here: a `Builder` is a folder and its `ModelSpec`; the plan turns it into steps, `config.py`
into a ModelConfig. Unknown fields are errors. Shapes leave out the batch dimension when `serving.max_batch_size` > 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from modelwright.suggest import did_you_mean
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.layout import version_number

FILE = "model.yaml"
EXPORT = "onnx"  # in `steps`: where the module becomes a graph

# What Triton takes as a model's name is any directory name; URLs, metrics labels and shells take these.
_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_model_name(text: str) -> bool:
    return _MODEL_NAME.fullmatch(text) is not None


def _name(value: str) -> str:
    if not is_model_name(value):
        raise ValueError(f"Triton cannot serve a model named {value!r}: use letters, digits, '_', '-' and '.'")
    return value


def _entry(value: str) -> str:
    if not _ENTRY.fullmatch(value):
        raise ValueError(f"expected module:function, got {value!r}")
    return value


def _dtype(value: str) -> str:
    if value not in BY_NAME:
        raise ValueError(f"{value!r} is no Triton data type; {did_you_mean(value, BY_NAME)}")
    return BY_NAME[value].name


def _shape(value: tuple[int | str, ...]) -> tuple[int | str, ...]:
    for dim in value:
        if (isinstance(dim, int) and dim < 1 and dim != -1) or (isinstance(dim, str) and not dim.isidentifier()):
            raise ValueError(f"a dimension is a number from 1, -1, or a name; got {dim!r}")
    return value


def inside_folder(value: str) -> str:
    """A path of the builder's folder, as written; symbolic links are looked at when the file is."""
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{value!r} leaves the builder's folder")
    return value


def _sha256(value: str) -> str:
    if not _SHA256.fullmatch(value):
        raise ValueError("expected 64 lower-case hexadecimal digits")
    return value


def _json_form(value: Any) -> Any:
    """YAML as protobuf's JSON form has it: keys are text (`priority_queue_policy: {1: …}`), `.inf` is "Infinity"."""
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise ValueError(f"the key {key!r} is neither a word nor a whole number: quote it")
        return {str(key): _json_form(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json_form(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _version(value: object) -> object:
    """A version's number as a key of YAML: 3 or "3", not true and not 03."""
    number = version_number(str(value)) if type(value) in (int, str) else None
    if number is None:
        raise ValueError(f"a version is a whole number from 0, without leading zeros; got {value!r}")
    return number


def _plain_path(value: str) -> str:
    """A path as it is published: nothing in it that could be written another way."""
    if inside_folder(value) != str(PurePosixPath(value)):
        raise ValueError(f"write '{value}' as '{PurePosixPath(value)}'")
    return value


def _pattern(expression: re.Pattern[str]) -> WithJsonSchema:
    """What editors check, by the expression that the validator uses."""
    return WithJsonSchema({"type": "string", "pattern": f"^{expression.pattern}$"})


Name = Annotated[str, AfterValidator(_name), _pattern(_MODEL_NAME)]
Entry = Annotated[str, AfterValidator(_entry), _pattern(_ENTRY)]
LocalPath = Annotated[str, AfterValidator(inside_folder), WithJsonSchema({"type": "string", "minLength": 1})]
PlainPath = Annotated[str, AfterValidator(_plain_path)]
Sha256 = Annotated[str, AfterValidator(_sha256), _pattern(_SHA256)]
TensorName = Annotated[str, Field(min_length=1)]
DataType = Annotated[str, AfterValidator(_dtype), WithJsonSchema({"type": "string", "enum": list(BY_NAME)})]
Version = Annotated[int, BeforeValidator(_version)]
Serving = Annotated[dict[str, JsonValue], BeforeValidator(_json_form)]


class StrictModel(BaseModel):
    """Frozen; a field that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorSpec(StrictModel):
    """One input or output. A dimension is a number, -1, or a name that tensors share ('sequence')."""

    name: TensorName
    dtype: DataType
    shape: Annotated[tuple[int | str, ...], AfterValidator(_shape)]

    @property
    def dims(self) -> list[int]:
        return [-1 if isinstance(dim, str) else dim for dim in self.shape]


class OutputSpec(TensorSpec):
    labels: LocalPath | None = None  # a file of class names, one a line, for Triton's classification extension


class Tolerance(StrictModel):
    """|actual - expected| ≤ atol + rtol · |expected|, in output units."""

    atol: float = Field(ge=0)
    rtol: float = Field(0.0, ge=0)


class SourceSpec(StrictModel):
    """`source`: where a model comes from. Each kind has a model of its own, with its name as the value of `kind`."""

    kind: str
    needs_samples: ClassVar[bool] = True
    needs_tensors: ClassVar[bool] = True  # inputs and outputs must be declared: nothing else says what they are
    composing_in: ClassVar[str] = "source.steps: model_name"  # where model.yaml names the composing models

    def check(self, spec: ModelSpec) -> None:
        """Check what this kind asks of the rest of model.yaml. Raises ValueError, in which pydantic sees an error."""

    def entries(self) -> Mapping[str, Entry]:
        """{field: module:function} of what the steps of this kind call in the builder's folder."""
        return {}

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        """The models that an ensemble runs, or that a Python model calls, each once, in order of first use."""
        return ()

    def alias_of(self) -> str:
        """The model that this is another name for, or for one of its variants; "" if it is a model of its own."""
        return ""

    def samples_of(self) -> str:
        """The model whose samples are this one's, too; "" for its own."""
        return ""

    def completed(self, builder: Builder, builders: Mapping[str, Builder], faulty: Collection[str]) -> ModelSpec:
        """The spec with what follows from other models, once all are read; `faulty` could not be. Raises SpecError."""
        return builder.spec


class StepOptions(StrictModel):
    """Options of a technique. Each technique has a model of its own."""

    def entries(self) -> Mapping[str, Entry]:
        """{field: module:function} of what the technique calls in the builder's folder."""
        return {}


class Lookups(Protocol):
    """What this package does not know: the models of source kinds and of techniques. See `variants.registry`."""

    def source(self, given: object) -> type[SourceSpec]:
        """The model of a `source` by what stands at its `kind`. Raises KindError."""

    def options(self, technique: object) -> type[StepOptions]:
        """The model of a technique's options. Raises KindError."""


def _by_kind(value: object, info: ValidationInfo) -> SourceSpec:
    """Read `source` by the model of its kind, which the validation context knows: see `parse_spec`."""
    if isinstance(value, SourceSpec):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be a mapping, with a kind in it")
    return cast(Lookups, info.context).source(value.get("kind")).model_validate(value)


Source = Annotated[SourceSpec, BeforeValidator(_by_kind)]


@dataclass(frozen=True)
class ChainStep:
    """One entry of a variant's `steps`: a technique and its options; None where the name is that of the export."""

    name: str
    options: StepOptions | None = None


def _chain_step(value: object, info: ValidationInfo) -> ChainStep:
    """`optimise`, or `{quantise: {mode: static}}`."""
    if isinstance(value, ChainStep):
        return value
    if isinstance(value, str):
        name, given = value, cast(Any, {})
    elif isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value)), str):
        name, given = next(iter(value.items()))
    else:
        raise ValueError("a step is a name, or a name with options: {quantise: {mode: static}}")
    if name == EXPORT:
        if given:
            raise ValueError(f"{EXPORT} takes no options here: those of the export stand under source")
        return ChainStep(EXPORT)
    model = cast(Lookups, info.context).options(name)
    try:
        return ChainStep(name, model.model_validate({} if given is None else given))
    except ValidationError as error:  # which does not know the technique's name, a part of the field's path
        problems = [
            InitErrorDetails(
                type=PydanticCustomError(
                    "value_error", "{error}", {"error": problem["msg"].removeprefix("Value error, ")}
                )
                if problem["type"] == "value_error"
                else problem["type"],
                loc=(name, *problem["loc"]),
                input=problem["input"],
                ctx=problem.get("ctx", {}),
            )
            for problem in error.errors(include_url=False)
        ]
        raise ValidationError.from_exception_data(error.title, problems) from None


Chain = Annotated[
    tuple[Annotated[ChainStep, BeforeValidator(_chain_step), WithJsonSchema({})], ...], Field(min_length=1)
]


class MetricGate(StrictModel):
    """Bounds of a metric. The drop and the rise are measured from the plain model's metric in the same step."""

    min: float | None = None
    max: float | None = None
    max_drop: float | None = Field(None, ge=0, description="Of a variant: how far it may fall below the plain model's.")
    max_rise: float | None = Field(None, ge=0, description="Of a variant: how far it may rise above the plain model's.")
    relative: bool = Field(False, description="max_drop and max_rise are shares of the plain model's metric.")
    of: Literal["folds"] | None = Field(
        None, description="folds: the mean over the folds of `k_fold` is held to the bounds, not what evaluate returns."
    )

    @model_validator(mode="after")
    def _some_bound(self) -> MetricGate:
        if self.min is None and self.max is None and not self.compares:
            raise ValueError("give min, max or both; in a variant also max_drop or max_rise")
        if self.relative and not self.compares:
            raise ValueError("relative: is for max_drop and max_rise")
        if self.of and self.compares:
            raise ValueError("of: folds goes with min and max: a variant has no folds of its own")
        return self

    @property
    def compares(self) -> bool:
        """Whether the plain model's metric is needed, too."""
        return self.max_drop is not None or self.max_rise is not None


class SizeGate(StrictModel):
    """How large a version's files may be, golden samples and manifest left out."""

    max_mb: float | None = Field(None, gt=0, description="Megabytes, 10^6 bytes.")
    max_ratio: float | None = Field(None, gt=0, description="Of a variant: share of the plain model's size.")

    @model_validator(mode="after")
    def _some_bound(self) -> SizeGate:
        if self.max_mb is None and self.max_ratio is None:
            raise ValueError("give max_mb, max_ratio or both")
        return self


class LatencyGate(StrictModel):
    """How long a variant may take in onnxruntime on one thread, against the plain model in the same minute."""

    max_ratio: float = Field(gt=0, description="Share of the plain model's time.")
    batch: int = Field(1, ge=1, description="Samples in a request.")


class Gates(BaseModel):
    """`tolerance`, `size`, `latency`, and one gate for each metric that `evaluate` returns."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, MetricGate]

    tolerance: Tolerance | None = None
    size: SizeGate | None = None
    latency: LatencyGate | None = None

    @property
    def metrics(self) -> dict[str, MetricGate]:
        """The gates of what `evaluate` returns."""
        return {name: gate for name, gate in self.__pydantic_extra__.items() if not gate.of}

    @property
    def folds(self) -> dict[str, MetricGate]:
        """The gates of what a cross-validation measured."""
        return {name: gate for name, gate in self.__pydantic_extra__.items() if gate.of}

    @property
    def comparing(self) -> list[str]:
        """The gates that need the plain model beside the variant."""
        found = [f"{name}.max_drop or max_rise" for name, gate in self.metrics.items() if gate.compares]
        if self.size and self.size.max_ratio is not None:
            found.append("size.max_ratio")
        return [*found, *(["latency"] if self.latency else [])]

    def merged(self, over: Gates) -> Gates:
        """These gates, with those that `over` sets in their place."""
        given = {name: getattr(over, name) for name in over.model_fields_set if name in type(over).model_fields}
        return self.model_copy(update=given | over.__pydantic_extra__)

    @model_serializer(mode="wrap")
    def _written(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As step keys have held them since before there were variants: what is newer is left out where it is unset."""
        data: dict[str, Any] = default(self)
        for name in ("size", "latency"):
            if data.get(name) is None:
                data.pop(name, None)
        for name in self.__pydantic_extra__:
            for newer, unset in (("max_drop", None), ("max_rise", None), ("relative", False), ("of", None)):
                if data[name].get(newer) == unset:
                    data[name].pop(newer, None)
        return data


class SloMargins(StrictModel):
    """By which share a candidate may be worse than its baseline before `load ab` fails it."""

    cpu: float = Field(0.05, gt=0)  # CPU time of the server's processes a request
    throughput: float = Field(0.05, gt=0, lt=1)  # at saturation
    p50: float = Field(0.05, gt=0)  # service time with one request in flight, and at the fixed load
    p99: float = Field(0.1, gt=0)  # at the fixed load
    compute: float = Field(0.05, gt=0)  # the server's, of one execution at equal batch sizes


class Slo(StrictModel):
    """What `load ab` holds a candidate to, and under which load. Nothing that is built depends on it."""

    p50_ms: float | None = Field(None, gt=0)  # service time at the fixed load, at most
    p99_ms: float | None = Field(None, gt=0)
    throughput_min: float | None = Field(None, gt=0)  # requests a second at saturation, at least
    rate: float | None = Field(None, gt=0)  # the fixed load, requests a second
    concurrency: int | None = Field(None, ge=1)  # requests in flight at saturation
    margins: SloMargins = SloMargins()


class VariantSpec(StrictModel):
    """Another model made from the same source: a Triton model with a name of its own."""

    name: Name
    description: str = ""
    steps: Chain = Field(description="Techniques, in order: optimise, {quantise: {mode: static}}, …")
    gates: Gates = Field(Gates(), description="Added to the builder's; a gate of the same name replaces that one.")
    serving: Serving = Field({}, description="Merged into the builder's.")
    evaluate: Entry | None = Field(None, description="In place of the builder's.")
    on_request: bool = Field(False, description="Built only when it is named, or with --all.")

    @model_validator(mode="after")
    def _each_once(self) -> VariantSpec:
        names = [step.name for step in self.steps]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"steps: {name} stands there twice")
        return self


class ModelSpec(StrictModel):
    name: Name
    description: str = ""
    source: Source
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    samples: Entry | None = None  # () → golden inputs {name: (N, *shape)}; some kinds can do without
    reference: Entry | None = None  # (samples) → the outputs they should give, where the source cannot say
    evaluate: Entry | None = None  # (infer) → {"accuracy": 0.99}; infer: inputs → outputs
    files: tuple[str, ...] = ()  # what its code reads: globs of this folder, or package:path of an installed one
    gates: Gates = Gates()
    slo: Slo | None = None  # for load tests: no step, config or manifest holds it
    serving: Serving = {}  # ModelConfig, field by field; and `environments`, the same once more for some servers
    variants: tuple[VariantSpec, ...] = ()  # other models made from the same source

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.samples is None and self.source.needs_samples:
            raise ValueError("samples: missing")
        if self.source.needs_tensors and not (self.inputs and self.outputs):
            raise ValueError(f"inputs and outputs are needed with source.kind {self.source.kind}")
        for field in ("reference", "evaluate"):
            if getattr(self, field) and self.samples is None:
                raise ValueError(f"{field}: needs samples")
        self.source.check(self)
        for tensors in (self.inputs, self.outputs):
            names = [tensor.name for tensor in tensors]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"two tensors are named '{name}'")
        held = [("gates", self.gates, self.evaluate)]
        for index, variant in enumerate(self.variants):
            held.append((f"variants[{index}].gates", variant.gates, variant.evaluate or self.evaluate))
        for where, gates, evaluate in held:
            if gates.metrics and not evaluate:
                raise ValueError(f"{where}.{next(iter(gates.metrics))}: a metric needs an evaluate entry")
        if self.gates.comparing:
            hint = "it compares a variant with the plain model: write it in the gates of a variant"
            raise ValueError(f"gates.{self.gates.comparing[0]}: {hint}")
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"variants: two are named '{name}'")
        for pattern in self.files:
            inside_folder(pattern.partition(":")[2] or pattern)
        return self

    @property
    def max_batch_size(self) -> int:
        value = self.serving.get("max_batch_size", 0)
        return value if isinstance(value, int) else 0  # anything else is config.py's to refuse

    @property
    def batched(self) -> bool:
        return self.max_batch_size > 0


def parse_spec(data: Mapping[str, Any], lookups: Lookups) -> ModelSpec:
    """A model.yaml's data as a ModelSpec. Raises pydantic's ValidationError, and KindError for a kind without a model.

    `lookups` is `variants.registry.LOOKUPS`, which knows every kind and technique; this package knows none.
    """
    return ModelSpec.model_validate(data, context=lookups)


@dataclass(frozen=True)
class Variant:
    """How a model is made from another one's source."""

    of: str  # the builder's own name
    steps: tuple[ChainStep, ...]
    on_request: bool = False

    @property
    def techniques(self) -> tuple[ChainStep, ...]:
        """The steps without the name of the export."""
        return tuple(step for step in self.steps if step.name != EXPORT)


@dataclass(frozen=True)
class Builder:
    """A model that a model.yaml describes: its folder, its file as messages show it, and what it says of this model.

    One model.yaml with `variants` makes several: each has the file's spec with its own name, gates and serving.
    """

    folder: Path
    file: str
    spec: ModelSpec
    variant: Variant | None = None  # None: the plain model

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def composing(self) -> tuple[str, ...]:
        """The models that an ensemble runs, or that a Python model calls, each once, in order of first use."""
        return self.spec.source.composing(self.spec.serving)

    def entries(self) -> Iterator[tuple[str, str]]:
        """(field, module:function) of every function of this folder that a build calls."""
        spec = self.spec
        yield from ((f"source.{field}", entry) for field, entry in spec.source.entries().items())
        fields = {"samples": spec.samples, "reference": spec.reference, "evaluate": spec.evaluate}
        yield from ((field, entry) for field, entry in fields.items() if entry)
        for step in self.variant.techniques if self.variant else ():
            if step.options:
                entries = step.options.entries().items()
                yield from ((f"variant {self.name}: {step.name}.{field}", entry) for field, entry in entries)
