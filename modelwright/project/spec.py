"""builders/<model>/model.yaml → ModelSpec: frozen, checked, nothing derived yet.

The data that flows from here: a `Builder` is a folder and its `ModelSpec`; the plan turns it into steps, `config.py`
into a ModelConfig. Unknown fields are errors. Shapes leave out the batch dimension when `serving.max_batch_size` > 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from modelwright.suggest import did_you_mean
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.layout import version_number

FILE = "model.yaml"

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

    def check(self, spec: ModelSpec) -> None:
        """Check what this kind asks of the rest of model.yaml. Raises ValueError, in which pydantic sees an error."""

    def entries(self) -> Mapping[str, Entry]:
        """{field: module:function} of what the steps of this kind call in the builder's folder."""
        return {}

    def composing(self, serving: Mapping[str, Any]) -> tuple[str, ...]:
        """The composing models of an ensemble, each once, in order of first use."""
        return ()


SourceLookup = Callable[[object], type[SourceSpec]]  # what stands at source.kind → its model; raises KindError


def _by_kind(value: object, info: ValidationInfo) -> SourceSpec:
    """Read `source` by the model of its kind, which the validation context knows: see `parse_spec`."""
    if isinstance(value, SourceSpec):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be a mapping, with a kind in it")
    source_model = cast(SourceLookup, info.context)
    return source_model(value.get("kind")).model_validate(value)


Source = Annotated[SourceSpec, BeforeValidator(_by_kind)]


class MetricGate(StrictModel):
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> MetricGate:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        return self


class Gates(BaseModel):
    """`tolerance`, and one gate for each metric that `evaluate` returns."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, MetricGate]

    tolerance: Tolerance | None = None

    @property
    def metrics(self) -> dict[str, MetricGate]:
        return self.__pydantic_extra__


class SloMargins(StrictModel):
    """By which share a candidate may be worse than its baseline before `load ab` fails it."""

    throughput: float = Field(0.05, gt=0, lt=1)  # at saturation
    p50: float = Field(0.05, gt=0)  # service time at the fixed load
    p99: float = Field(0.1, gt=0)
    compute: float = Field(0.05, gt=0)  # the server's, of one execution at equal batch sizes


class Slo(StrictModel):
    """What `load ab` holds a candidate to, and under which load. Nothing that is built depends on it."""

    p50_ms: float | None = Field(None, gt=0)  # service time at the fixed load, at most
    p99_ms: float | None = Field(None, gt=0)
    throughput_min: float | None = Field(None, gt=0)  # requests a second at saturation, at least
    rate: float | None = Field(None, gt=0)  # the fixed load, requests a second
    concurrency: int | None = Field(None, ge=1)  # requests in flight at saturation
    margins: SloMargins = SloMargins()


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
        if self.gates.metrics and not self.evaluate:
            raise ValueError(f"gates.{next(iter(self.gates.metrics))}: a metric needs an evaluate entry")
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


def parse_spec(data: Mapping[str, Any], source_model: SourceLookup) -> ModelSpec:
    """A model.yaml's data as a ModelSpec. Raises pydantic's ValidationError, and KindError for a kind without a model.

    `source_model` is `kinds.registry.source_model`, which knows every kind; this package knows none.
    """
    return ModelSpec.model_validate(data, context=source_model)


@dataclass(frozen=True)
class Builder:
    """A model.yaml that was read: its folder, its file as messages show it, and what it says."""

    folder: Path
    file: str
    spec: ModelSpec

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def composing(self) -> tuple[str, ...]:
        """The composing models of an ensemble, each once, in order of first use."""
        return self.spec.source.composing(self.spec.serving)

    def entries(self) -> Iterator[tuple[str, str]]:
        """(field, module:function) of every function of this folder that a build calls."""
        spec = self.spec
        yield from ((f"source.{field}", entry) for field, entry in spec.source.entries().items())
        fields = {"samples": spec.samples, "reference": spec.reference, "evaluate": spec.evaluate}
        yield from ((field, entry) for field, entry in fields.items() if entry)
