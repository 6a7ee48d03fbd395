"""The result of a load test: one JSON document, from which the terminal's table, the CSV and the HTML report are made.

Times are in milliseconds, rates per second, sizes in bytes. A percentile is null where too few requests were measured
to state it (`latency.NEEDED`). `docs/load-result.md` describes the document; schemas/load-result.schema.json is made
from these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1  # raised when a reader of the old document would misread the new one

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
MetricWord = Literal["PASS", "FAIL", "INCONCLUSIVE", "REPORTED"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Part):
    """A distribution of latencies over the measured requests, failed ones left out."""

    count: int
    mean_ms: float | None
    min_ms: float | None
    max_ms: float | None
    percentiles_ms: dict[str, float | None]  # "p50", "p90", "p95", "p99", "p99.9"


class CurvePoint(_Part):
    """One point of the percentile curve: a share `quantile` (0..1) of the requests took no longer than this."""

    quantile: float
    service_ms: float
    response_ms: float


class Window(_Part):
    """A slice of the measured time, by the time at which requests ended. `p50_ms`, `p99_ms`: service time."""

    start_s: float  # from the start of the measurement, warm-up excluded
    duration_s: float
    requests: int
    failed: int
    throughput: float
    p50_ms: float | None
    p99_ms: float | None


class Stability(_Part):
    """Whether throughput and median latency of the last windows lie within `tolerance` (a share) of their mean."""

    stable: bool
    tolerance: float
    reason: str  # "" when stable


class Failure(_Part):
    """Failed requests of one kind.

    Kinds: `connect`, `closed`, `timeout`, `HTTP 400`, `gRPC INVALID_ARGUMENT`, `wrong answer`, `not sent`.
    """

    kind: str
    message: str  # of the first one
    count: int
    first_s: float  # from the start of the measurement; negative in the warm-up


class Requests(_Part):
    """Counts over the measured time. `checked` answers were compared with the golden ones; `wrong` of them differed.

    `not_sent`, of the failed ones: the client did not send them before the end of an open loop.
    """

    succeeded: int
    failed: int
    checked: int
    wrong: int
    not_sent: int = 0


class BatchSize(_Part):
    """The executions of one batch size, from the server's statistics."""

    size: int
    executions: int
    compute_ms: float  # mean compute_infer of one execution


class ServerStatistics(_Part):
    """The server's statistics over the same time, as differences. Means are per request.

    `requests` counts successful ones. CPU and memory are null for a server on another machine. An ensemble's queue and
    compute times are the sums over its composing models.
    """

    requests: int
    executions: int
    mean_ms: float  # a request's whole time in the server's core
    queue_ms: float
    compute_input_ms: float
    compute_infer_ms: float
    compute_output_ms: float
    batches: list[BatchSize]
    mean_batch: float | None
    cache_hits: int
    cpu_cores: float | None  # CPU seconds a second: 1.5 is one and a half cores busy
    memory_bytes: int | None  # resident, of all the server's processes
    cpu_ms_per_request: float | None = None  # CPU time of these processes a successful request, the warm-up included


class ClientHealth(_Part):
    """How the load generator itself did. Lag is a request's actual less its intended start (open loop only)."""

    processes: int
    cpu_cores: list[float]  # of each process
    memory_bytes: int  # resident, all processes together
    send_lag_p99_ms: float | None
    loop_lag_p99_ms: float | None  # how late a timer of the event loop fires
    cpu_us_per_request: float | None
    ceiling: float | None  # requests a second that these processes could send at most
    ceiling_source: Literal["null server", "CPU time"] | None
    network_and_client_ms: float | None  # client's mean service time less the server's mean time


class Validity(_Part):
    verdict: Literal["VALID", "INVALID"]
    reasons: list[str]  # why it is INVALID
    notes: list[str] = Field(default_factory=list)  # what a reader should know although it is valid


class OfferedLoad(_Part):
    """The requested load. Closed loop: `concurrency` requests in flight; open loop: `rate` requests a second."""

    mode: Literal["closed", "open"]
    concurrency: int | None = None
    rate: float | None = None
    arrivals: Literal["poisson", "constant"] | None = None
    batch: int = 1  # rows a request
    processes: int = 1
    warmup_s: float
    duration_s: float


class Target(_Part):
    """The tested version of a model, its server and the protocol."""

    url: str
    protocol: Literal["http", "grpc"]
    model: str
    version: str  # "" where the server chose
    api: str = "raw"  # or "tritonclient": how requests are made
    payload: str = ""  # a description: "golden samples, 64 distinct"
    payload_bytes: int | None = None


class Measurement(_Part):
    """One load on one version for one stretch of time."""

    label: str  # unique in the document: "32 in flight", "1,000 req/s", "round 3 B"
    target: Target
    load: OfferedLoad
    started: str  # ISO 8601, UTC
    measured_s: float  # less than load.duration_s after Ctrl-C or a dead server
    complete: bool
    requests: Requests
    throughput: float  # successful requests a second
    inferences: float  # the same in rows
    service: Latency  # from the actual start
    response: Latency  # from the intended start; closed loop: the same
    curve: list[CurvePoint]
    windows: list[Window]
    stability: Stability
    failures: list[Failure]
    server: ServerStatistics | None
    client: ClientHealth
    validity: Validity


class SloResult(_Part):
    """The highest open-loop rate at which the objective held; `probes` are labels of measurements, in order."""

    percentile: str  # "p99"
    objective_ms: float
    rate: float | None  # null: it did not hold even at the lowest rate that was tried
    probes: list[str]
    held: list[bool]
    limited_by: Literal["objective", "client", "rate given"]
    explanation: str


class Interval(_Part):
    """A ratio candidate / baseline, and its bootstrap interval.

    Of the better quarter of each side's rounds, or the median of the rounds' ratios: the calibration chooses.
    """

    metric: str  # "cpu", "throughput", "p50", "p99", "compute"
    regime: str  # "saturation", "one in flight" or "fixed load"
    ratio: float
    low: float
    high: float
    confidence: float
    baseline: float  # the better quartile or the median of the rounds, in `unit`
    candidate: float
    unit: str  # "req/s" or "ms"
    rounds: int


class MetricVerdict(_Part):
    """An interval against its margin. `margin` is the worsening that is allowed, a share: 0.05.

    `verdict` is REPORTED where the metric is not gated (`why_reported`) and nothing speaks against the candidate.
    """

    interval: Interval
    margin: float
    higher_is_better: bool
    verdict: MetricWord
    p_value: float | None  # of "worse by no more than the margin", before Holm's correction
    rejected: bool  # after Holm's correction over models and metrics
    gated: bool = True  # the calibration found that this machine can decide it at the margin
    why_reported: str = ""  # why it is not


class Threshold(_Part):
    """A model's `slo:` against what the candidate did; an absolute bound, no ratio."""

    name: str  # "p99_ms", "throughput_min"
    bound: float
    measured: float | None
    verdict: Verdict


class Share(_Part):
    """A part of a request's mean time, per request: `queue`, `compute`, `network and client`."""

    part: str
    baseline_ms: float
    candidate_ms: float


class Attribution(_Part):
    """Which part moved, in which regime, and what differs between the versions."""

    cause: str  # "compute", "queue", "batch mix", "network and client", "errors", "nothing moved"
    explanation: str
    regime: str
    shares: list[Share]
    baseline_batch: float | None  # mean batch sizes
    candidate_batch: float | None
    baseline_batches: dict[int, float]  # batch size → share of executions
    candidate_batches: dict[int, float]
    differences: list[str]  # manifest and config, one line each


class Round(_Part):
    """One side in one round, as the statistics use it."""

    round: int
    order: int  # its place within the round
    side: Literal["A", "A2", "B"]  # A2: the baseline once more, in the rounds of the calibration
    throughput: float | None
    p50_ms: float | None
    p99_ms: float | None
    compute_ms: float | None
    failed: int
    cpu_ms: float | None = None


class Gate(_Part):
    """The verdict on one model: candidate against baseline."""

    model: str
    baseline: str  # "version 3", or a repository
    candidate: str
    verdict: Verdict
    reasons: list[str]
    metrics: list[MetricVerdict]
    calibration: list[MetricVerdict]  # baseline against itself, in the rounds before the comparison
    thresholds: list[Threshold]
    attribution: Attribution
    rounds: list[Round]
    seed: int


class MachineFacts(_Part):
    cpu: str
    cores: int
    memory_bytes: int
    system: str  # "Linux 6.1, Python 3.11.7"
    client_and_server_share_it: bool


class Result(_Part):
    """The document."""

    schema_version: Literal[1] = 1
    kind: Literal["run", "sweep", "slo", "ab"]
    title: str
    modelwright: str
    created: str  # ISO 8601, UTC
    command: list[str]
    machine: MachineFacts
    server: dict[str, Any]  # name, version and extensions, from the server's metadata
    complete: bool  # false after Ctrl-C, a lost worker or a dead server
    notes: list[str] = Field(default_factory=list)
    measurements: list[Measurement]
    slo: SloResult | None = None
    gates: list[Gate] = Field(default_factory=list)
