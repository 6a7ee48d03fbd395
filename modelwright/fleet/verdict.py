"""What a canary's figures mean: pure, from counts and latencies to a verdict.

Against the new version speaks a share of failed requests above the allowed one, of the load's own requests or of the
clients', and a p99 above the allowed multiple of the served version's. Rounds that are drawn again and again give the
interval of that multiple: where it reaches below the limit, noise may have decided, and the verdict says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelwright.loadtest.measure.latency import NEEDED, latency
from modelwright.text import counted, milliseconds, number, percent

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RESAMPLES = 1000
_CONFIDENCE = 0.95
_SEED = 7


@dataclass(frozen=True)
class Limits:
    """What the new version must keep: failed requests as a share, and its p99 as a multiple of the served one's."""

    max_error_rate: float = 0.0
    max_p99_ratio: float = 1.2


@dataclass
class Recorded:
    """The requests to one version, over all rounds. `latencies_ns`: of those that succeeded, one array a round."""

    version: int
    requests: int = 0
    failed: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # kind → how many
    latencies_ns: list[NDArray[Any]] = field(default_factory=list)

    def p99_ms(self) -> float | None:
        """Over all rounds together; None where they have too few requests to state one."""
        import numpy as np

        return latency(np.concatenate(self.latencies_ns)).percentiles_ms["p99"] if self.latencies_ns else None


@dataclass(frozen=True)
class Traffic:
    """What clients sent to the new version meanwhile, by the server's statistics, less the load's own requests."""

    requests: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Judged:
    """`against` says what speaks against the new version, with the figures; empty where it may go live."""

    against: tuple[str, ...]
    requests: int
    failed: int
    error_rate: float
    traffic: Traffic
    p99_ms: float | None
    served_p99_ms: float | None
    p99_ratio: float | None
    p99_interval: tuple[float, float] | None  # of the ratio, 95 %
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.against

    @property
    def text(self) -> str:
        """The figures in one line."""
        rate = f"{self.failed:,} of {counted(self.requests, 'request')} failed"
        p99 = f"p99 {milliseconds(self.p99_ms)} against {milliseconds(self.served_p99_ms)}"
        ratio = f", {_times(self.p99_ratio, self.p99_interval)}" if self.p99_ratio is not None else ""
        clients = f"; of clients {self.traffic.failed:,} of {self.traffic.requests:,}" if self.traffic.requests else ""
        return f"{rate}{clients}; {p99}{ratio}"


def judge(served: Recorded, new: Recorded, traffic: Traffic, limits: Limits, notes: Sequence[str] = ()) -> Judged:
    """Hold the new version's figures against the limits."""
    total, failed = new.requests + traffic.requests, new.failed + traffic.failed
    error_rate = failed / total if total else 0.0
    p99, served_p99 = new.p99_ms(), served.p99_ms()
    ratio = p99 / served_p99 if p99 is not None and served_p99 else None
    interval = _interval(served, new) if ratio is not None else None
    against = [*_errors(new, traffic, error_rate, limits), *_p99(new, ratio, p99, served_p99, interval, limits)]
    told = list(notes)
    if served.failed:
        told.append(f"version {served.version}, which is served, failed {served.failed:,} of {served.requests:,}")
    return Judged(
        tuple(against),
        new.requests,
        new.failed,
        error_rate,
        traffic,
        p99,
        served_p99,
        ratio,
        interval,
        tuple(told),
    )


def too_many_errors(new: Recorded, planned: int, limits: Limits) -> bool:
    """Whether so many requests have failed that the rest of the bake cannot bring the share below the limit."""
    return new.failed > limits.max_error_rate * planned


def _errors(new: Recorded, traffic: Traffic, error_rate: float, limits: Limits) -> list[str]:
    if not new.requests:
        return ["no request was answered in time to be counted"]
    if error_rate <= limits.max_error_rate:
        return []
    kinds = ", ".join(f"{kind}: {count:,}" for kind, count in new.failures.most_common(3))
    whose = [f"{new.failed:,} of {counted(new.requests, 'request')} failed" + (f" ({kinds})" if kinds else "")]
    if traffic.failed:
        whose.append(f"{traffic.failed:,} of {counted(traffic.requests, 'request')} of clients failed")
    return [f"errors: {'; '.join(whose)}: {percent(error_rate)}, allowed {percent(limits.max_error_rate)}"]


def _p99(
    new: Recorded,
    ratio: float | None,
    p99: float | None,
    served_p99: float | None,
    interval: tuple[float, float] | None,
    limits: Limits,
) -> list[str]:
    if ratio is None:
        succeeded = new.requests - new.failed
        return [f"p99: {counted(succeeded, 'request')} succeeded, and a p99 needs {NEEDED['p99']:,} of each version"]
    if ratio <= limits.max_p99_ratio:
        return []
    text = (
        f"p99: {milliseconds(p99)} against {milliseconds(served_p99)}, {_times(ratio, interval)}, "
        f"allowed {number(limits.max_p99_ratio)}"
    )
    if interval is not None and interval[0] <= limits.max_p99_ratio:
        text += "; that may be noise: bake longer (--bake), or when the machine is quieter"
    return [text]


def _times(ratio: float, interval: tuple[float, float] | None) -> str:
    return f"{number(ratio)} times" + (f" ({number(interval[0])} to {number(interval[1])})" if interval else "")


def _interval(served: Recorded, new: Recorded) -> tuple[float, float]:
    """The percentile bootstrap over rounds, never over requests: those of a round are not independent."""
    import numpy as np

    draw = np.random.default_rng(_SEED)
    ours, theirs = ([part for part in side.latencies_ns if len(part)] for side in (new, served))
    ratios = []
    for _ in range(_RESAMPLES):
        rounds = draw.integers(0, len(theirs), len(theirs))
        # Both sides of a round ran one after the other, and are drawn together.
        own = rounds if len(ours) == len(theirs) else draw.integers(0, len(ours), len(ours))
        ratios.append(_raw_p99(ours, own) / _raw_p99(theirs, rounds))
    low, high = np.quantile(ratios, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


def _raw_p99(parts: Sequence[NDArray[Any]], rounds: Iterable[int]) -> float:
    import numpy as np

    return float(np.percentile(np.concatenate([parts[index] for index in rounds]), 99))
