"""The result of a bench: one JSON document, from which the tables, the report and `modelwright pick` are made.

Times are in milliseconds, sizes in bytes. A ratio above 1 is better: twice as fast is 2. docs/bench.md describes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelwright.errors import LoadError
from modelwright.fsops import read_file
from modelwright.loadtest.document import MachineFacts

Form = Literal["eager", "compiled", "onnx", "variant", "served only"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ratio(_Part):
    """Of two contenders, by the rounds in which both were measured: the median, and its interval."""

    ratio: float
    low: float
    high: float
    confidence: float
    rounds: int


class BatchLatency(_Part):
    """Calls at one batch size in a process of its own. `low_ms`, `high_ms`: the interval of the median."""

    batch: int
    calls: int
    median_ms: float
    low_ms: float
    high_ms: float
    p95_ms: float | None  # null where there were too few calls to state it
    rows_per_s: float
    rounds_ms: list[float]  # the median of each round, in their order
    speedup: Ratio | None = None  # against the source, whose own is null


class ServedThroughput(_Part):
    """Requests in the local server at saturation."""

    requests_per_s: float
    low: float
    high: float
    p50_ms: float | None
    p99_ms: float | None
    failed: int
    rounds_per_s: list[float]
    speedup: Ratio | None = None  # against the plain model, as a server has no PyTorch
    notes: list[str] = Field(default_factory=list)


class ContenderResult(_Part):
    """One row: a framework's form of the source, the plain model, or a variant."""

    name: str
    form: Form
    description: str = ""
    model: str | None = None  # in the repository; null for a framework's form
    version: int | None = None
    version_digest: str | None = None
    reason: str = ""  # why it was not measured in a process: "not built: …"
    not_served: str = ""  # why it was not measured in the server
    size_bytes: int | None = None
    memory_bytes: int | None = None  # the highest resident memory, less that of the process without the model
    metrics: dict[str, float] = Field(default_factory=dict)
    latencies: list[BatchLatency] = Field(default_factory=list)
    served: ServedThroughput | None = None

    @property
    def measured(self) -> bool:
        return bool(self.latencies or self.served)

    def at(self, batch: int) -> BatchLatency | None:
        return next((latency for latency in self.latencies if latency.batch == batch), None)


class BenchResult(_Part):
    """The document, of one builder."""

    schema_version: Literal[1] = 1
    model: str  # the builder's own name
    created: str  # ISO 8601, UTC
    modelwright: str
    command: list[str]
    machine: MachineFacts
    instruction_set: str
    versions: dict[str, str]  # of onnxruntime, torch, …
    threads: int
    batches: list[int]
    rounds: int
    seed: int
    inputs: str  # what the contenders were given
    others_cores: float | None  # how many cores other programs kept busy meanwhile; null where it is not known
    source: str  # the name of the row that speed-ups are against
    served_source: str = ""
    served_with: str = ""  # "32 requests in flight, 2 instances"
    complete: bool = True
    notes: list[str] = Field(default_factory=list)
    contenders: list[ContenderResult]

    def contender(self, name: str) -> ContenderResult | None:
        return next((row for row in self.contenders if row.name == name), None)


def place(folder: Path, model: str) -> Path:
    """Where the last result of a model is kept, below the project's state folder."""
    return folder / "bench" / f"{model}.json"


def write(result: BenchResult, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(result.model_dump_json(indent=1), encoding="utf-8")
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read(path: Path, again: str) -> BenchResult:
    """Raises LoadError for a file that is missing or damaged; `again` is the command that writes it."""
    try:
        return BenchResult.model_validate_json(read_file(path))
    except FileNotFoundError:
        raise LoadError(f"{path.stem}: there is no result of a bench", f"measure first: {again}") from None
    except OSError as error:
        raise LoadError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise LoadError(f"{path}: damaged, or of another Modelwright: {problem}", f"measure again: {again}") from None
