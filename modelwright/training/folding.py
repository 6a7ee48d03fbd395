"""`k_fold`: how good a training is, measured on data that it did not see, as often as there are folds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from modelwright import progress
from modelwright.facts.training import FoldSpread, TrainingRecord
from modelwright.training import session
from modelwright.training.data import Samples, samples_of
from modelwright.training.fitting import check_installed, fit, run_fit
from modelwright.training.options import FitOptions

if TYPE_CHECKING:
    from torch import nn

_MADE_HERE = ("module", "data", "validation")


@dataclass(frozen=True)
class Folds:
    """The metrics of a cross-validation: a number for each fold."""

    metrics: dict[str, tuple[float, ...]]

    def mean(self, metric: str) -> float:
        return FoldSpread.of(self.metrics[metric]).mean

    def spread(self, metric: str) -> float:
        """The standard deviation of a single fold."""
        return FoldSpread.of(self.metrics[metric]).spread

    def __str__(self) -> str:
        return ", ".join(f"{name} {FoldSpread.of(values)}" for name, values in self.metrics.items())


def k_fold(
    make_module: Callable[[], nn.Module], data: Any, folds: int = 5, *, validation: float | None = None, **options: Any
) -> Folds:
    """Train `folds` modules, each without one part of the data, and measure each on the part that it did not see.

    `options` are those of `fit`. The parts have the same share of every class, where targets are classes. A part
    chooses nothing: for early stopping give `validation`, the share of the rest that chooses the epoch.
    `gates: {accuracy: {min: 0.9, of: folds}}` in model.yaml holds the mean over the folds to its bounds.
    """
    here = session.current()
    check_installed(here)
    try:
        samples, groups, asked = _checked(make_module, data, folds, validation, options)
    except (TypeError, ValueError) as error:
        raise here.error(f"k_fold: {error}") from None
    found: dict[str, list[float]] = {}
    hear = progress.current()
    for number, (rest, part) in enumerate(groups, 1):
        where = f"fold {number}/{folds}"
        here.say(where)
        with progress.told_to(partial(_told, hear, where)):
            _, module = run_fit(make_module, samples.subset(rest), validation, asked, f"k_fold: {where}")
        for name, value in _measured(module, samples.subset(part), asked).items():
            found.setdefault(name, []).append(value)
    result = Folds({name: tuple(values) for name, values in found.items()})
    here.say(str(result))
    here.keep(TrainingRecord(folds=result.metrics))
    return result


def _told(hear: progress.Tell, where: str, text: str) -> None:
    hear(f"{where}, {text}")


def _checked(
    make_module: Any, data: Any, folds: int, validation: Any, given: dict[str, Any]
) -> tuple[Samples, list[tuple[Any, Any]], FitOptions]:
    from torch import nn

    if isinstance(make_module, nn.Module) or not callable(make_module):
        raise ValueError("expected a function or class that makes a module: each fold trains a new one")
    if validation is not None and not isinstance(validation, float):
        raise ValueError("validation: expected a share between 0 and 1: the folds are held out anyway")
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(fit).parameters.items()
        if name not in _MADE_HERE
    }
    unknown = [name for name in given if name not in defaults]
    if unknown or "epochs" not in given:
        raise TypeError(f"fit takes no argument '{unknown[0]}'" if unknown else "the argument epochs is missing")
    options = FitOptions(**{**defaults, **given})
    options.check()
    samples = samples_of(data, "data")
    return samples, list(_parts(samples, folds, options.seed)), options


def _parts(samples: Samples, folds: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Indices to train on and indices to measure on."""
    import numpy as np
    from sklearn.model_selection import KFold, StratifiedKFold

    labels = samples.labels()
    if not isinstance(folds, int) or not 2 <= folds <= len(samples):
        raise ValueError(f"folds: expected a whole number from 2 to {len(samples)}, got {folds!r}")
    if labels is not None and np.unique(labels, return_counts=True)[1].min() < folds:
        rarest = np.unique(labels, return_counts=True)[1].min()
        raise ValueError(f"folds: a class has {rarest} samples, fewer than {folds} folds")
    kind = KFold if labels is None else StratifiedKFold
    parts: Iterator[tuple[Any, Any]] = kind(folds, shuffle=True, random_state=seed).split(
        np.zeros(len(samples)), labels
    )
    return parts


def _measured(module: Any, part: Samples, options: FitOptions) -> dict[str, float]:
    from modelwright.training.loop import loss_of, measured, outputs_of

    outputs, targets = outputs_of(module, part, options.batch_size)
    return {"loss": float(loss_of(options)(outputs, targets)), **measured(options.metric_functions(), outputs, targets)}
