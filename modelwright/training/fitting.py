"""`fit`: a module and data in, the trained module out."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from modelwright.errors import ModelwrightError
from modelwright.facts.part import JsonObject
from modelwright.facts.training import EpochMetrics, TrainingRecord
from modelwright.suggest import did_you_mean
from modelwright.training import losses, session
from modelwright.training.checkpoints import Checkpoint, CheckpointError
from modelwright.training.data import Samples, samples_of
from modelwright.training.options import FitOptions

if TYPE_CHECKING:
    from torch import nn

    from modelwright.training.loop import TrainingPlan, TrainingState

_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
_LOGGERS = ("lightning", "lightning.fabric", "lightning.pytorch")


def fit(
    module: nn.Module | Callable[[], nn.Module],
    data: Any,
    *,
    epochs: int,
    validation: Any = None,
    batch_size: int = 32,
    lr: float = 1e-3,
    loss: str | Callable[..., Any] = "cross_entropy",
    metrics: Sequence[str] | Mapping[str, Callable[..., Any]] | None = None,
    optimiser: str | Callable[..., Any] = "adamw",
    weight_decay: float = 0.01,
    schedule: str | Callable[..., Any] = "one_cycle",
    label_smoothing: float = 0.0,
    class_weights: str | Sequence[float] | None = None,
    augment: Callable[..., Any] | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    precision: str = "auto",
    monitor: str | None = None,
    mode: str | None = None,
    patience: int | None = None,
    seed: int = 0,
    devices: int | str = "auto",
    workers: int = 0,
) -> nn.Module:
    """Train a module; returned in eval mode, on the CPU, with the weights of the best epoch.

    `module`: an nn.Module, or a function or class that makes one; that is called after the seed is set.
    `data`: `(inputs, targets)`, arrays or tensors, or a Dataset of such pairs. Several inputs: a tuple or a mapping.
    `validation`: the same, or the share of `data` to hold out (of each class alike, where targets are classes).
    `loss`: cross_entropy, binary_cross_entropy (both of logits), mse, mae, huber; or a function of outputs and targets.
    `metrics`: accuracy, f1, mse, mae, r2; or {name: function} of all validation outputs and targets.
    `optimiser`: adamw, sgd; or a function of parameter groups and lr. Biases and norms do not decay.
    `schedule`: one_cycle, cosine, constant; or a function of the optimiser and the number of steps.
    `class_weights`: "balanced", or a number for each class. `clip`: the largest norm of the gradients.
    `augment`: is given each batch of inputs in training, and in training only.
    `precision`: auto (bf16 or fp16 where a GPU has tensor cores for it, else 32), 32, bf16, fp16.
    `monitor`: the metric that says which epoch is best, and `mode` whether `min` or `max` is; val_loss by default.
    Without validation data the last epoch is taken. `patience`: epochs without a better one before it stops early.

    In a build, a training that is killed goes on from its last checkpoint, to the same bytes. Raises StepError.
    """
    given = {name: value for name, value in locals().items() if name not in ("module", "data", "validation")}
    record, trained = run_fit(module, data, validation, FitOptions(**given), "fit")
    session.current().keep(record)
    return trained


def run_fit(
    module: Any, data: Any, validation: Any, options: FitOptions, where: str
) -> tuple[TrainingRecord, nn.Module]:
    """Train as `fit` does; what came of it, and the module. Messages begin with `where`."""
    here = session.current()
    check_installed(here)
    from modelwright.training.loop import TrainingFaultError, own_randomness, seed_everything

    with _quiet(), own_randomness():
        try:
            options.check()
            seed_everything(options.seed, 0)
            made = _module_of(module)
            plan = _plan(made, data, validation, options, here)
            state = _trained(plan)
        except TrainingFaultError as error:
            raise here.error(f"{where}: {error.problem}", error.hint) from None
        except CheckpointError as error:
            hint = f"the code that made the module or the data gives another every time: remove {here.folder}"
            raise here.error(f"{where}: {error}", hint) from None
        except ValueError as error:
            if isinstance(error, ModelwrightError) or _is_of_builder(error):
                raise
            raise here.error(f"{where}: {error}") from None
    made.load_state_dict(state.best)
    return _record(plan, state), made.eval()


def check_installed(here: session.TrainingSession) -> None:
    if find_spec("lightning") is None:
        raise here.error("modelwright.training needs lightning: not installed", "pip install 'modelwright[train]'")


def _is_of_builder(error: BaseException) -> bool:
    """Whether an error comes from a function that the builder gave, or from torch: its traceback says more then."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and f"{os.sep}modelwright{os.sep}training{os.sep}" not in trace.tb_frame.f_code.co_filename


def _module_of(module: Any) -> Any:
    from torch import nn

    made = module if isinstance(module, nn.Module) else module() if callable(module) else module
    if not isinstance(made, nn.Module):
        raise ValueError(f"expected an nn.Module, or a function that makes one, got {type(made).__name__}")
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise ValueError("the module has no parameters to train")
    return made


def _plan(module: Any, data: Any, validation: Any, options: FitOptions, here: session.TrainingSession) -> TrainingPlan:
    from modelwright.training.hardware import hardware_for
    from modelwright.training.loop import TrainingPlan

    train = samples_of(data, "data")
    held_out: Samples | None = None
    if isinstance(validation, float | int) and not isinstance(validation, bool):
        train, held_out = _split(train, validation, options.seed)
    elif validation is not None:
        held_out = samples_of(validation, "validation")
    monitor, better = _monitored(options, held_out is not None)
    hardware = hardware_for(options.precision, options.devices)
    here.say(f"trains on {hardware}")
    params: JsonObject = {
        **options.as_json(),
        "monitor": monitor,
        "precision": hardware.precision,
        "samples": len(train),
        "validation_samples": len(held_out) if held_out else 0,
    }
    weights = _class_weights(options, train)
    checkpoint = Checkpoint(here.next_checkpoint())
    return TrainingPlan(
        module, options, train, held_out, weights, monitor, better, checkpoint, params, here.say, hardware
    )


def _split(data: Samples, share: float, seed: int) -> tuple[Samples, Samples]:
    """Training and held-out part, of each class alike where the targets are classes."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise ValueError(f"validation: expected data or a share between 0 and 1, got {share}")
    labels = data.labels()
    try:
        first, second = train_test_split(np.arange(len(data)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise ValueError(f"validation: {share:g} of {len(data)} samples cannot be held out: {error}") from None
    return data.subset(first), data.subset(second)


def _monitored(options: FitOptions, validated: bool) -> tuple[str, str]:
    """The metric that chooses the epoch, and which values of it are better. Raises ValueError."""
    known = ["loss", *(f"val_{name}" for name in ("loss", *options.metric_functions()) if validated)]
    monitor = options.monitor or ("val_loss" if validated else "")
    if monitor and monitor not in known:
        hint = did_you_mean(monitor, known)
        why = "" if validated or not monitor.startswith("val_") else " without validation data"
        raise ValueError(f"monitor: there is no metric '{monitor}'{why}: {hint}")
    if options.patience is not None and not monitor:
        raise ValueError("patience: needs validation data, or monitor='loss'")
    better = options.mode or losses.direction(monitor) or ("min" if not monitor else None)
    if better is None:
        raise ValueError(f"mode: say whether 'min' or 'max' of {monitor} is better")
    return monitor, better


def _class_weights(options: FitOptions, train: Samples) -> Any:
    import numpy as np
    import torch

    if options.class_weights is None:
        return None
    labels = train.labels()
    if options.class_weights == "balanced":
        if labels is None:
            raise ValueError("class_weights: the labels of this data are not known; give a number for each class")
        counts = np.bincount(labels)
        if not counts.all():
            raise ValueError(f"class_weights: class {int(counts.argmin())} has no samples")
        return torch.tensor(len(labels) / (len(counts) * counts), dtype=torch.float32)
    if isinstance(options.class_weights, str):
        raise ValueError(f"class_weights: expected 'balanced' or numbers, got '{options.class_weights}'")
    return torch.as_tensor(options.class_weights, dtype=torch.float32)


def _trained(plan: TrainingPlan) -> TrainingState:
    from modelwright.training.hardware import fabric_on
    from modelwright.training.loop import run, run_packed

    fabric = fabric_on(plan.hardware)
    if plan.hardware.devices == 1:
        return run(fabric, plan)
    with _no_bytecode():
        packed: bytes = fabric.launch(partial(run_packed, plan=replace(plan, say=print)))
    state: TrainingState = pickle.loads(packed)  # noqa: S301  (from our own child)
    return state


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Let processes that start in the block leave no __pycache__ in the builder's folder."""
    before = os.environ.get(_NO_BYTECODE)
    os.environ[_NO_BYTECODE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_NO_BYTECODE]


def _record(plan: TrainingPlan, state: TrainingState) -> TrainingRecord:
    epochs = tuple(EpochMetrics(epoch=number, metrics=metrics) for number, metrics in enumerate(state.epochs, 1))
    return TrainingRecord(params=plan.params, epochs=epochs, best_epoch=state.best_epoch, monitor=plan.monitor)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Lightning says about its own insides, and torch about a schedule's, out of the log."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\b")
        warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step")
        import lightning.fabric  # noqa: F401  (sets the levels of its loggers when it is first imported)

        loggers = [logging.getLogger(name) for name in _LOGGERS]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
