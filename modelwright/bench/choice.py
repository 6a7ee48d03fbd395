"""Which published model of a bench is best for an objective, and by how much.

Only models that passed their gates are published, so whatever is best is good enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modelwright import text
from modelwright.bench.document import BenchResult, ContenderResult, Ratio
from modelwright.bench.rounds import is_beyond, speedup
from modelwright.errors import LoadError

Objective = Literal["throughput", "latency", "size"]


@dataclass(frozen=True)
class Choice:
    """The best model and the next one. `ratio`: how many times better the best one is; exact for a size."""

    objective: Objective
    measure: str  # "requests a second in the server", what was compared
    best: str
    value: str
    second: str = ""
    second_value: str = ""
    ratio: Ratio | None = None
    is_decided: bool = True  # whether the difference is beyond the interval
    left_out: tuple[str, ...] = ()  # models that this was not measured of, with the reason

    @property
    def reason(self) -> str:
        """In a sentence or two."""
        if not self.second:
            return f"{self.best} is the only one that was measured: {self.value} ({self.measure})"
        found = f"{self.best}: {self.value}, {self.second}: {self.second_value} ({self.measure})"
        if self.ratio is None:
            return found
        low, high = text.number(self.ratio.low), text.number(self.ratio.high)
        by = f"{text.number(self.ratio.ratio)} times, between {low} and {high} with 95 % confidence"
        doubt = "" if self.is_decided else "; the difference is within the noise of the measurement"
        return f"{found}; {by}{doubt}"


@dataclass(frozen=True)
class _Candidate:
    name: str
    value: float
    shown: str
    rounds: Sequence[float]


def choose(result: BenchResult, objective: Objective, batch: int | None = None) -> Choice:
    """The best of the models that were measured. Raises LoadError where none was, or not at this batch size."""
    rows = [row for row in result.contenders if row.model and row.version is not None]
    if batch is not None and batch not in result.batches:
        known = ", ".join(map(str, result.batches))
        raise LoadError(
            f"--batch {batch}: the bench measured {known or 'no batch'}",
            f"modelwright bench {result.model} --batch {batch}",
        )
    measure, found, higher = _candidates(result, rows, objective, batch)
    if not found:
        raise LoadError(
            f"{result.model}: no published model has this measured: {measure}", f"modelwright bench {result.model}"
        )
    found.sort(key=lambda item: item.value, reverse=higher)
    best, second = found[0], found[1] if len(found) > 1 else None
    names = {item.name for item in found}
    left_out = tuple(_why(row) for row in result.contenders if row.model and row.name not in names)
    if second is None:
        return Choice(objective, measure, best.name, best.shown, left_out=left_out)
    ratio = speedup(second.rounds, best.rounds, result.seed, higher_is_better=higher) if best.rounds else None
    decided = is_beyond(ratio) if ratio else best.value != second.value
    return Choice(objective, measure, best.name, best.shown, second.name, second.shown, ratio, decided, left_out)


def _candidates(
    result: BenchResult, rows: Sequence[ContenderResult], objective: Objective, batch: int | None
) -> tuple[str, list[_Candidate], bool]:
    """(what is compared, the candidates, whether more is better)."""
    if objective == "size":
        sizes = [(row.name, row.size_bytes) for row in rows if row.size_bytes is not None]
        return "size of a version", [_Candidate(name, size, text.size(size), ()) for name, size in sizes], False
    if objective == "throughput" and batch is None and any(row.served for row in rows):
        served = [(row.name, row.served) for row in rows if row.served]
        found = [
            _Candidate(name, item.requests_per_s, text.rate(item.requests_per_s), item.rounds_per_s)
            for name, item in served
        ]
        return f"in the server, {result.served_with}", found, True
    default = max if objective == "throughput" else min
    size = batch or default(_common(rows) or result.batches or [1])
    timed = [(row.name, latency) for row in rows if (latency := row.at(size))]
    unit = text.counted(size, "row")
    if objective == "latency":
        found = [
            _Candidate(name, item.median_ms, text.milliseconds(item.median_ms), item.rounds_ms) for name, item in timed
        ]
        return f"median of a call with {unit}", found, False
    found = [
        _Candidate(
            name,
            item.rows_per_s,
            f"{text.number(item.rows_per_s)} rows/s",
            [size * 1000 / one for one in item.rounds_ms],
        )
        for name, item in timed
    ]
    return f"rows a second in calls with {unit}", found, True


def _common(rows: Sequence[ContenderResult]) -> list[int]:
    """The batch sizes that all of them were measured at."""
    sizes = [{latency.batch for latency in row.latencies} for row in rows if row.latencies]
    return sorted(set.intersection(*sizes)) if sizes else []


def _why(row: ContenderResult) -> str:
    return f"{row.name}: {row.reason or row.not_served or 'not measured'}"
