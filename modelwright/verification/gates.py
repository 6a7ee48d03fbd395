"""Metrics of a builder's `evaluate`, held to the gates of its model.yaml."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from modelwright.errors import StepError, VerifyError
from modelwright.project.spec import Gates

_HINT = "nothing was published; improve the model, or change gates in its model.yaml and say why"


def metrics_from(returned: Any, where: str) -> dict[str, float]:
    """What `evaluate` returned, as {metric: number}. Raises StepError; `where` is how messages call the function."""
    if not isinstance(returned, Mapping) or not returned:
        raise StepError(f"{where}: expected {{metric: number}}, got {returned!r}")
    try:
        metrics = {str(name): float(value) for name, value in returned.items()}
    except (TypeError, ValueError):
        metrics = {"": math.nan}
    if not all(map(math.isfinite, metrics.values())):
        raise StepError(f"{where}: expected numbers, got {dict(returned)!r}")
    return metrics


def check_gates(gates: Gates, metrics: Mapping[str, float]) -> None:
    """Raise VerifyError for a metric that is missing or outside its gate."""
    for name, gate in gates.metrics.items():
        if name not in metrics:
            raise VerifyError(f"gates.{name}: evaluate returned no such metric, only {sorted(metrics)}")
        value = metrics[name]
        if gate.min is not None and value < gate.min:
            raise VerifyError(f"{name} is {value:.6g}, the gate asks for at least {gate.min:g}", _HINT)
        if gate.max is not None and value > gate.max:
            raise VerifyError(f"{name} is {value:.6g}, the gate asks for at most {gate.max:g}", _HINT)
