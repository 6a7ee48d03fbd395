"""What a training is asked for, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from modelwright.facts.part import JsonObject
from modelwright.suggest import did_you_mean
from modelwright.training import losses

OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("one_cycle", "cosine", "constant")
PRECISIONS = ("auto", "32", "bf16", "fp16")


@dataclass(frozen=True)
class FitOptions:
    """The arguments of `fit`, as they were given."""

    epochs: int
    batch_size: int
    lr: float
    loss: str | Callable[..., Any]
    metrics: Sequence[str] | Mapping[str, Callable[..., Any]] | None
    optimiser: str | Callable[..., Any]
    weight_decay: float
    schedule: str | Callable[..., Any]
    label_smoothing: float
    class_weights: str | Sequence[float] | None
    augment: Callable[..., Any] | None
    clip: float | None
    accumulate: int
    precision: str
    monitor: str | None
    mode: str | None
    patience: int | None
    seed: int
    devices: int | str
    workers: int

    def check(self) -> None:
        """Raise ValueError for what no training can be made of."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("workers", 0), ("patience", 1)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ValueError(f"{name}: expected a whole number from {least}, got {value!r}")
        for name, positive in (("lr", True), ("clip", True), ("weight_decay", False), ("label_smoothing", False)):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and (value > 0 if positive else value >= 0)):
                raise ValueError(f"{name}: expected a number {'above' if positive else 'from'} 0, got {value!r}")
        if self.label_smoothing >= 1:
            raise ValueError(f"label_smoothing: expected a number below 1, got {self.label_smoothing!r}")
        for name, known in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            self._check_known(name, known)
        self._check_known("loss", losses.LOSSES)
        for metric in self.metrics or ():
            if not isinstance(self.metrics, Mapping) and metric not in losses.METRICS:
                raise ValueError(f"metrics: no metric '{metric}': {did_you_mean(metric, losses.METRICS)}")
        if self.loss != "cross_entropy" and (self.label_smoothing or self.class_weights is not None):
            name = "label_smoothing" if self.label_smoothing else "class_weights"
            raise ValueError(f"{name}: is for loss='cross_entropy', not {self.loss!r}")
        if self.mode not in (None, "min", "max"):
            raise ValueError(f"mode: expected 'min' or 'max', got {self.mode!r}")

    def _check_known(self, name: str, known: Sequence[str]) -> None:
        value = getattr(self, name)
        if isinstance(value, str) and value not in known:
            raise ValueError(f"{name}: no {name} '{value}': {did_you_mean(value, known)}")
        if not isinstance(value, str) and not callable(value):
            raise ValueError(f"{name}: expected a name or a function, got {value!r}")

    def metric_functions(self) -> dict[str, losses.Metric]:
        """Metric → function of the outputs and the targets of all validation data."""
        if isinstance(self.metrics, Mapping):
            return dict(self.metrics)
        names = losses.usual_metrics(self.loss) if self.metrics is None else self.metrics
        return {name: losses.METRICS[name] for name in names}

    def as_json(self) -> JsonObject:
        """For the record: functions by their names; without what changes how fast it goes and nothing else."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        found["metrics"] = list(self.metric_functions())
        return {name: _plain(value) for name, value in found.items() if name not in ("workers", "devices", "monitor")}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's numbers and arrays, tensors
        return value.tolist()
    return getattr(value, "__qualname__", type(value).__qualname__)
