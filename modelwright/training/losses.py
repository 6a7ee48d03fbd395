"""Losses and metrics that have names. A metric is a function of outputs and targets, of all validation data at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Metric = Callable[[Any, Any], Any]
Loss = Callable[[Any, Any], Any]

LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber")


def named_loss(name: str, weights: Any = None, smoothing: float = 0.0) -> Loss:
    """A loss of raw outputs: logits for the two cross entropies. `weights` are those of the classes."""
    from torch.nn import functional

    if name == "cross_entropy":
        return lambda outputs, targets: functional.cross_entropy(
            outputs, targets, weight=None if weights is None else weights.to(outputs), label_smoothing=smoothing
        )
    functions: dict[str, Any] = {
        "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
        "mse": functional.mse_loss,
        "mae": functional.l1_loss,
        "huber": functional.huber_loss,
    }
    function = functions[name]
    return lambda outputs, targets: function(outputs, _like(outputs, targets))


def _like(outputs: Any, targets: Any) -> Any:
    """Targets in the shape and type of the outputs: (N,) and (N, 1) would be broadcast to (N, N)."""
    if outputs.shape != targets.shape:
        if outputs.numel() != targets.numel():
            raise ValueError(f"the module gives {tuple(outputs.shape)}, the targets are {tuple(targets.shape)}")
        targets = targets.reshape(outputs.shape)
    return targets.to(outputs.dtype)


def _accuracy(outputs: Any, targets: Any) -> float:
    return float((_classes(outputs) == targets.reshape(_classes(outputs).shape)).double().mean())


def _classes(outputs: Any) -> Any:
    """The class of each row: the largest logit, or the sign of a single one."""
    if outputs.ndim < 2 or outputs.shape[1] == 1:
        return (outputs.flatten() > 0).long()
    return outputs.argmax(dim=1)


def _f1(outputs: Any, targets: Any) -> float:
    """The mean of the classes' F1, each class with the same weight."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets.flatten().numpy(), _classes(outputs).flatten().numpy(), average="macro"))


def _mse(outputs: Any, targets: Any) -> float:
    return float((outputs - _like(outputs, targets)).double().square().mean())


def _mae(outputs: Any, targets: Any) -> float:
    return float((outputs - _like(outputs, targets)).double().abs().mean())


def _r2(outputs: Any, targets: Any) -> float:
    targets = _like(outputs, targets).double()
    total = (targets - targets.mean()).square().sum()
    return float(1 - (outputs.double() - targets).square().sum() / total)


METRICS: dict[str, Metric] = {"accuracy": _accuracy, "f1": _f1, "mse": _mse, "mae": _mae, "r2": _r2}
_LARGER_IS_BETTER = {"accuracy": "max", "f1": "max", "r2": "max", "mse": "min", "mae": "min", "loss": "min"}


def usual_metrics(loss: str | Loss) -> tuple[str, ...]:
    """What is measured where nobody says what."""
    if loss in ("cross_entropy", "binary_cross_entropy"):
        return ("accuracy",)
    return ("mae",) if loss in ("mse", "huber") else ()


def direction(metric: str) -> str | None:
    """`min` or `max`: which values of a metric are better; None for one that is not known here."""
    return _LARGER_IS_BETTER.get(metric.removeprefix("val_"))
