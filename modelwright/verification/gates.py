"""What a model is held to: metrics of its builder's `evaluate`, its size, its time, against the gates of model.yaml."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.errors import StepError, VerifyError
from modelwright.project.spec import Gates, MetricGate
from modelwright.verification.confusion import CONFUSION

_HINT = "nothing was published; improve the model, or change gates in its model.yaml and say why"


@dataclass(frozen=True)
class MissedGate:
    """One bound that a model misses."""

    gate: str  # accuracy.max_drop
    measured: float
    allowed: float
    text: str  # "accuracy is 0.912, the gate asks for at least 0.98"

    @property
    def distance(self) -> float:
        """How far the measured value is beyond what is allowed; to compare candidates by the same gate."""
        return abs(self.measured - self.allowed)


def metrics_from(returned: Any, where: str) -> dict[str, float]:
    """What `evaluate` returned, as {metric: number}, without a confusion matrix.

    Raises StepError; `where` is how messages call the function.
    """
    if not isinstance(returned, Mapping) or not returned:
        raise StepError(f"{where}: expected {{metric: number}}, got {returned!r}")
    try:
        metrics = {str(name): float(value) for name, value in returned.items() if name != CONFUSION}
    except (TypeError, ValueError):
        metrics = {"": math.nan}
    if not all(map(math.isfinite, metrics.values())):
        raise StepError(f"{where}: expected numbers, got {dict(returned)!r}")
    return metrics


def missed_gates(gates: Gates, metrics: Mapping[str, float], plain: Mapping[str, float] = {}) -> list[MissedGate]:
    """The bounds that metrics miss. `plain` are the plain model's, for `max_drop` and `max_rise`.

    Raises VerifyError for a metric that is missing.
    """
    missed: list[MissedGate] = []
    for name, gate in gates.metrics.items():
        for values in (metrics, plain) if gate.compares else (metrics,):
            if name not in values:
                raise VerifyError(f"gates.{name}: evaluate returned no such metric, only {sorted(values)}")
        missed += _missed(name, gate, metrics[name], plain.get(name, 0.0), known=name in plain)
    return missed


def _missed(name: str, gate: MetricGate, value: float, plain: float, *, known: bool) -> Iterator[MissedGate]:
    """`known`: whether the plain model's metric is."""
    if gate.min is not None and value < gate.min:
        also = f"; the plain model misses it, too: {plain:.6g}" if known and plain < gate.min else ""
        text = f"{name} is {value:.6g}, the gate asks for at least {gate.min:g}{also}"
        yield MissedGate(f"{name}.min", value, gate.min, text)
    if gate.max is not None and value > gate.max:
        also = f"; the plain model misses it, too: {plain:.6g}" if known and plain > gate.max else ""
        text = f"{name} is {value:.6g}, the gate asks for at most {gate.max:g}{also}"
        yield MissedGate(f"{name}.max", value, gate.max, text)
    scale = abs(plain) if gate.relative else 1.0
    for field, allowed, moved in (
        ("max_drop", gate.max_drop, plain - value),
        ("max_rise", gate.max_rise, value - plain),
    ):
        if allowed is not None and moved > allowed * scale + _ROUNDING:
            share = f" ({moved / scale:.2%})" if gate.relative and scale else ""
            most = f"{allowed:.2%} of it" if gate.relative else f"{allowed:g}"
            verb = "falls" if field == "max_drop" else "rises"
            text = (
                f"{name} is {value:.6g}, the plain model's {plain:.6g}: it {verb} by {moved:.3g}{share}, allowed {most}"
            )
            yield MissedGate(f"{name}.{field}", moved, allowed * scale, text)


# 0.97 against 0.98 is a drop of 0.01 to a person, and a little more in binary floating point.
_ROUNDING = 1e-9


def check_gates(
    gates: Gates, metrics: Mapping[str, float], plain: Mapping[str, float] = {}, details: Sequence[str] = ()
) -> None:
    """Raise VerifyError for metrics that are missing or miss their gates. `details` says more about the model."""
    missed = missed_gates(gates, metrics, plain)
    if missed:
        error = VerifyError("\n  ".join(["; ".join(item.text for item in missed), *details]), _HINT)
        error.measured, error.missed = dict(metrics), tuple(item.gate.rpartition(".")[0] for item in missed)
        raise error


def check_folds(gates: Gates, folds: Mapping[str, Sequence[float]]) -> None:
    """Raise VerifyError where the mean over the folds of a cross-validation misses its gate."""
    missed = []
    for name, gate in gates.folds.items():
        if name not in folds:
            kept = f"only {sorted(folds)}" if folds else "none: it did not call k_fold of modelwright.training"
            raise VerifyError(f"gates.{name}: the training kept no folds of such a metric, {kept}")
        values = folds[name]
        mean, spread = statistics.fmean(values), statistics.stdev(values)
        for item in _missed(name, gate, mean, 0.0, known=False):
            missed.append(f"over {len(values)} folds {item.text} (the folds are {mean:.3g} ± {spread:.2g})")
    if missed:
        raise VerifyError("\n  ".join(missed), _HINT)


def check_size(gates: Gates, size_bytes: int, plain_bytes: int) -> None:
    """Raise VerifyError for files that are larger than the gate allows."""
    gate = gates.size
    if gate is None:
        return
    if gate.max_mb is not None and size_bytes > gate.max_mb * 1e6:
        raise VerifyError(f"the model is {size_bytes / 1e6:.2f} MB, the gate allows {gate.max_mb:g} MB", _HINT)
    if gate.max_ratio is not None and size_bytes > gate.max_ratio * plain_bytes:
        ratio = size_bytes / plain_bytes
        raise VerifyError(
            f"the model has {ratio:.3f} times the plain model's size, the gate allows {gate.max_ratio:g}", _HINT
        )


def check_latency(gates: Gates, ratio: float) -> None:
    """Raise VerifyError for a model that takes longer than the gate allows."""
    gate = gates.latency
    if gate is not None and ratio > gate.max_ratio:
        raise VerifyError(
            f"{gate.batch} samples take {ratio:.3f} times the plain model's time, the gate allows {gate.max_ratio:g}",
            f"{_HINT}; on a busy machine, build again when it is quiet",
        )
