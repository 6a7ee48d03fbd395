"""builders/<model>/model.yaml → ModelSpec: frozen, checked, nothing derived yet.

The data that flows from here: a `Builder` is a folder and its `ModelSpec`; the plan turns it into steps, `config.py`
into a ModelConfig. Unknown fields are errors. Shapes leave out the batch dimension when `serving.max_batch_size` > 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from modelwright.suggest import did_you_mean
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.layout import CONFIG, GOLDEN, MANIFEST, leading_number, version_number

FILE = "model.yaml"

# What Triton takes as a model's name is any directory name; URLs, metrics labels and shells take these.
_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _name(value: str) -> str:
    if not _MODEL_NAME.fullmatch(value):
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


def _inside(value: str) -> str:
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
        raise ValueError(f"a version is a whole number from 1, without leading zeros; got {value!r}")
    return number


def _plain_path(value: str) -> str:
    """A path as it is published: nothing in it that could be written another way."""
    if _inside(value) != str(PurePosixPath(value)):
        raise ValueError(f"write '{value}' as '{PurePosixPath(value)}'")
    return value


def _pattern(expression: re.Pattern[str]) -> WithJsonSchema:
    """What editors check, by the expression that the validator uses."""
    return WithJsonSchema({"type": "string", "pattern": f"^{expression.pattern}$"})


Name = Annotated[str, AfterValidator(_name), _pattern(_MODEL_NAME)]
Entry = Annotated[str, AfterValidator(_entry), _pattern(_ENTRY)]
LocalPath = Annotated[str, AfterValidator(_inside), WithJsonSchema({"type": "string", "minLength": 1})]
PlainPath = Annotated[str, AfterValidator(_plain_path)]
Sha256 = Annotated[str, AfterValidator(_sha256), _pattern(_SHA256)]
TensorName = Annotated[str, Field(min_length=1)]
DataType = Annotated[str, AfterValidator(_dtype), WithJsonSchema({"type": "string", "enum": list(BY_NAME)})]
Version = Annotated[int, BeforeValidator(_version)]
Serving = Annotated[dict[str, JsonValue], BeforeValidator(_json_form)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TensorSpec(_Model):
    """One input or output. A dimension is a number, -1, or a name that tensors share ('sequence')."""

    name: TensorName
    dtype: DataType
    shape: Annotated[tuple[int | str, ...], AfterValidator(_shape)]

    @property
    def dims(self) -> list[int]:
        return [-1 if isinstance(dim, str) else dim for dim in self.shape]


class OutputSpec(TensorSpec):
    labels: LocalPath | None = None  # a file of class names, one a line, for Triton's classification extension


class TorchSource(_Model):
    kind: Literal["torch"]
    entry: Entry  # (**params) → an nn.Module in eval mode
    params: dict[str, JsonValue] = {}
    threads: int = Field(1, ge=1)  # part of the result: floating-point sums depend on it


class OnnxSource(_Model):
    kind: Literal["onnx"]
    path: LocalPath | None = None
    url: str | None = None
    sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _one_place(self) -> OnnxSource:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either path or url")
        if self.url is not None and not self.url.startswith(("https://", "file://")):
            raise ValueError("url: https:// or file:// is needed")
        if self.url is not None and self.sha256 is None:
            raise ValueError("sha256 is needed with url: what a URL serves can change")
        return self


class HuggingFaceSource(_Model):
    kind: Literal["huggingface"]
    path: LocalPath | None = None
    package: str | None = None  # a Python package that carries the directory
    subfolder: str = ""
    auto_class: str = "AutoModel"
    entry: Entry | None = None  # (model, **params) → the nn.Module to export
    params: dict[str, JsonValue] = {}
    threads: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _one_place(self) -> HuggingFaceSource:
        if (self.path is None) == (self.package is None):
            raise ValueError("give either path or package")
        if self.subfolder:
            _inside(self.subfolder)
        return self


class PythonSource(_Model):
    kind: Literal["python"]
    model: LocalPath = "model.py"  # has the class TritonPythonModel
    files: dict[str, str] = {}  # name in the version → file of this folder, or package:path of an installed one
    requirements: tuple[str, ...] = ()  # exact pins, dependencies included, vendored for the target's Python

    @model_validator(mode="after")
    def _files_stay_inside(self) -> PythonSource:
        for name, origin in self.files.items():
            _inside(name)
            _inside(origin.partition(":")[2] or origin)
        return self


class EnsembleStep(_Model):
    model_name: Name
    model_version: int = -1  # Triton's own default is 0, which is no version
    input_map: dict[str, str] = Field(min_length=1)  # the model's tensor → the ensemble's
    output_map: dict[str, str] = Field(min_length=1)
    model_namespace: str = ""  # which repository, where the server has several with the same names

    @model_serializer(mode="wrap")
    def _written(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a namespace that nobody gave: keys and versions from before it was a field stay what they are."""
        fields: dict[str, Any] = default(self)
        return {key: value for key, value in fields.items() if key != "model_namespace" or value}


class EnsembleSource(_Model):
    kind: Literal["ensemble"]
    steps: tuple[EnsembleStep, ...] = Field(min_length=1)


class Tolerance(_Model):
    """|actual - expected| ≤ atol + rtol · |expected|, in output units."""

    atol: float = Field(ge=0)
    rtol: float = Field(0.0, ge=0)


class GoldenRecord(_Model):
    """Golden samples that an adopted version brought along, `N/golden.npz`, and how its answers are compared."""

    sha256: Sha256
    batch: int = Field(ge=0)  # rows a request
    tolerance: dict[str, Tolerance] = {}
    members: dict[str, Sha256] = {}  # an ensemble's: what each member's version held when the answers were recorded


class PrebuiltSource(_Model):
    """Versions that were made elsewhere, under their own numbers; `modelwright adopt` writes it.

    Every file lies in the builder's folder under the path it has in the repository: `3/model.onnx`, `labels.txt`.
    `serving` is the whole ModelConfig then: nothing in it is derived.
    """

    kind: Literal["prebuilt"]
    versions: dict[Version, dict[PlainPath, Sha256]] = Field(min_length=1)  # number → file → digest
    files: dict[PlainPath, Sha256] = {}  # what lies beside config.pbtxt: labels, warm-up data, shared libraries
    golden: dict[Version, GoldenRecord] = {}

    @property
    def digests(self) -> dict[str, str]:
        """{path in the builder's folder: SHA-256} of every file."""
        found = {
            f"{number}/{name}": digest for number, files in self.versions.items() for name, digest in files.items()
        }
        return found | self.files | {f"{number}/{GOLDEN}": record.sha256 for number, record in self.golden.items()}

    @model_validator(mode="after")
    def _names_are_free(self) -> PrebuiltSource:
        for number, files in self.versions.items():
            for name in files:
                if name in (MANIFEST, GOLDEN):
                    raise ValueError(f"versions.{number}: {name}: Modelwright writes a file of this name itself")
        for name in self.files:
            folder, slash, _ = name.partition("/")
            if name == CONFIG or (slash and leading_number(folder) is not None):
                raise ValueError(f"files: {name}: is no file of its own beside {CONFIG}")
        for number in self.golden:
            if number not in self.versions:
                raise ValueError(f"golden.{number}: there is no such version")
        return self


Source = Annotated[
    TorchSource | OnnxSource | HuggingFaceSource | PythonSource | EnsembleSource | PrebuiltSource,
    Field(discriminator="kind"),
]
KINDS = ("torch", "onnx", "huggingface", "python", "ensemble", "prebuilt")


class MetricGate(_Model):
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


class SloMargins(_Model):
    """By which share a candidate may be worse than its baseline before `load ab` fails it."""

    throughput: float = Field(0.05, gt=0, lt=1)  # at saturation
    p50: float = Field(0.05, gt=0)  # service time at the fixed load
    p99: float = Field(0.1, gt=0)
    compute: float = Field(0.05, gt=0)  # the server's, of one execution at equal batch sizes


class Slo(_Model):
    """What `load ab` holds a candidate to, and under which load. Nothing that is built depends on it."""

    p50_ms: float | None = Field(None, gt=0)  # service time at the fixed load, at most
    p99_ms: float | None = Field(None, gt=0)
    throughput_min: float | None = Field(None, gt=0)  # requests a second at saturation, at least
    rate: float | None = Field(None, gt=0)  # the fixed load, requests a second
    concurrency: int | None = Field(None, ge=1)  # requests in flight at saturation
    margins: SloMargins = SloMargins()


class ModelSpec(_Model):
    name: Name
    description: str = ""
    source: Source
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    samples: Entry | None = None  # () → golden inputs {name: (N, *shape)}; only a prebuilt model may do without
    reference: Entry | None = None  # (samples) → the outputs they should give, where the source cannot say
    evaluate: Entry | None = None  # (infer) → {"accuracy": 0.99}; infer: inputs → outputs
    files: tuple[str, ...] = ()  # what its code reads: globs of this folder, or package:path of an installed one
    gates: Gates = Gates()
    slo: Slo | None = None  # for load tests: no step, config or manifest holds it
    serving: Serving = {}  # ModelConfig, field by field; and `environments`, the same once more for some servers

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        self._check_given()
        for tensors in (self.inputs, self.outputs):
            names = [tensor.name for tensor in tensors]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"two tensors are named '{name}'")
        if self.gates.metrics and not self.evaluate:
            raise ValueError(f"gates.{next(iter(self.gates.metrics))}: a metric needs an evaluate entry")
        for pattern in self.files:
            _inside(pattern.partition(":")[2] or pattern)
        return self

    def _check_given(self) -> None:
        """What each kind of source needs beside itself."""
        if isinstance(self.source, PrebuiltSource):
            for field in ("reference", "evaluate"):
                if getattr(self, field) and not self.samples:
                    raise ValueError(f"{field}: needs samples")
            if any(tensor.labels for tensor in self.outputs):
                raise ValueError(
                    "outputs: labels of a prebuilt model stand in serving.output, its files in source.files"
                )
            return
        if self.samples is None:
            raise ValueError("samples: missing")
        if not isinstance(self.source, OnnxSource) and not (self.inputs and self.outputs):
            raise ValueError(f"inputs and outputs are needed with source.kind {self.source.kind}")

    @property
    def max_batch_size(self) -> int:
        value = self.serving.get("max_batch_size", 0)
        return value if isinstance(value, int) else 0  # anything else is config.py's to refuse

    @property
    def batched(self) -> bool:
        return self.max_batch_size > 0


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
        source = self.spec.source
        if isinstance(source, EnsembleSource):
            return tuple(dict.fromkeys(step.model_name for step in source.steps))
        return _scheduled(self.spec.serving) if isinstance(source, PrebuiltSource) else ()

    def entries(self) -> Iterator[tuple[str, str]]:
        """(field, module:function) of every function of this folder that a build calls."""
        spec = self.spec
        fields: dict[str, Any] = {
            "source.entry": getattr(spec.source, "entry", None),
            "samples": spec.samples,
            "reference": spec.reference,
            "evaluate": spec.evaluate,
        }
        yield from ((field, entry) for field, entry in fields.items() if entry)


def _scheduled(serving: Mapping[str, Any]) -> tuple[str, ...]:
    """The models of `serving.ensemble_scheduling`; what is malformed there, config.py refuses."""
    scheduling = serving.get("ensemble_scheduling")
    steps = scheduling.get("step") if isinstance(scheduling, dict) else None
    names = [step.get("model_name") for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str) and name))
