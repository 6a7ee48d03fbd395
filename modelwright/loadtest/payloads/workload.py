"""What is sent, and how much: plain data that the command line passes to generator processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from modelwright.loadtest.payloads.arrivals import Arrivals
from modelwright.triton.access import NO_ACCESS, Access

Api = Literal["raw", "tritonclient"]


@dataclass(frozen=True)
class Workload:
    """Requests to one version of one model.

    `payload` is "" (golden samples if the repository has them, else generated), "golden", "random", "zero" or the path
    of a file or folder. One answer in `check_every` is compared with the golden one; 0 for none. A sequence model gets
    sequences of `sequence_length` requests.
    """

    url: str
    model: str
    version: str = ""  # "" for the one that the server chooses
    payload: str = ""
    repository: str = ""  # a model repository's folder, for golden samples
    batch: int = 1
    distinct: int = 64
    shapes: Mapping[str, int | list[int]] = field(
        default_factory=dict
    )  # tensor shapes by input; a number: one variable size
    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of generated numbers, by input
    ranges_of: str = ""  # golden samples that they follow otherwise; "" for those of the version
    seed: int = 7
    check_every: int = 100
    api: Api = "raw"
    shared_memory: bool = False
    sequence_length: int = 10
    timeout_s: float = 30.0
    access: Access = NO_ACCESS

    def as_json(self) -> str:
        """For another process alone: headers of `access` can be secrets."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Workload:
        return Workload.of(json.loads(text))

    @staticmethod
    def of(data: Mapping[str, Any]) -> Workload:
        """From what `asdict` makes of one, or JSON of that."""
        return Workload(**{**data, "access": Access.of(data.get("access", {}))})


@dataclass(frozen=True)
class LoadShape:
    """A load shape.

    Closed loop: `concurrency` requests in flight. Open loop: `rate` requests a second, whether earlier ones are
    answered or not.
    """

    concurrency: int | None = None
    rate: float | None = None
    arrivals: Arrivals = "poisson"
    warmup_s: float = 1.0
    duration_s: float = 10.0

    @property
    def is_open(self) -> bool:
        return self.rate is not None
