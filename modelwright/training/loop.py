"""The training itself, on Lightning's Fabric: epochs over batches, the best weights, checkpoints.

A training that goes on from a checkpoint comes to the same bytes as one that was never stopped. So nothing may depend
on what happened before an epoch but the state that a checkpoint holds: random numbers start anew with each epoch.
"""

from __future__ import annotations

import copy
import math
import pickle
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from modelwright import progress
from modelwright.facts.part import JsonObject
from modelwright.training.checkpoints import Checkpoint
from modelwright.training.data import Samples, answer, each, groups_of
from modelwright.training.hardware import Hardware, repeatable
from modelwright.training.losses import Loss, Metric, named_loss
from modelwright.training.optimisers import optimiser_for, schedule_for
from modelwright.training.options import FitOptions

_CHECKED_EVERY = 64  # batches: looking at a loss waits for the GPU
_TOLD_EVERY_S = 1.0


class TrainingFaultError(ValueError):
    """A training that came to nothing: a loss that is no number, a metric that is not there."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem, self.hint = problem, hint


@dataclass(frozen=True)
class TrainingPlan:
    """One training, ready to run. It may cross into other processes, one for each device."""

    module: Any
    options: FitOptions
    train: Samples
    validation: Samples | None
    class_weights: Any
    monitor: str  # "" for the last epoch
    better: str  # min, max
    checkpoint: Checkpoint
    params: JsonObject
    say: Callable[[str], None]
    hardware: Hardware

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must be of."""
        shapes = {name: list(tensor.shape) for name, tensor in self.module.state_dict().items()}
        return {"params": dict(self.params), "weights": shapes}

    @property
    def steps_an_epoch(self) -> int:
        batches = len(groups_of(len(self.train), self.options.batch_size, _zeros(len(self.train))))
        return math.ceil(batches / self.options.accumulate)


@dataclass
class TrainingState:
    """What came of a training so far: all that is kept beside weights, optimiser and schedule."""

    epochs: list[dict[str, float]] = field(default_factory=list)  # metrics of each
    best_epoch: int = 0
    best: dict[str, Any] = field(default_factory=dict)  # the weights of that epoch

    def take(self, metrics: dict[str, float], module: Any, plan: TrainingPlan) -> None:
        """Add an epoch. Raises TrainingFaultError where it lacks the monitored metric."""
        self.epochs.append(metrics)
        if not plan.monitor or not self.best_epoch:
            is_better = True
        else:
            now, before = metrics[plan.monitor], self.epochs[self.best_epoch - 1][plan.monitor]
            is_better = now < before if plan.better == "min" else now > before
        if is_better and (plan.monitor or len(self.epochs) == plan.options.epochs):
            self.best_epoch = len(self.epochs)
            self.best = {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}

    def is_over(self, options: FitOptions) -> bool:
        waited = len(self.epochs) - self.best_epoch
        return len(self.epochs) >= options.epochs or (options.patience is not None and waited >= options.patience)


def run(fabric: Any, plan: TrainingPlan) -> TrainingState:
    """Train in one of the processes of Fabric. Raises TrainingFaultError, CheckpointError, StoreError."""
    options = plan.options
    module = copy.deepcopy(plan.module)
    optimiser = optimiser_for(module, options.optimiser, options.lr, options.weight_decay)
    schedule = schedule_for(optimiser, options.schedule, options.lr, options.epochs * plan.steps_an_epoch)
    model, optimiser = fabric.setup(module, optimiser)
    loop = _Loop(fabric, plan, module, model, optimiser, schedule)
    loop.resume()
    with repeatable(plan.hardware):
        while not loop.state.is_over(options):
            loop.run_epoch(len(loop.state.epochs) + 1)
    return loop.state


def run_packed(fabric: Any, plan: TrainingPlan) -> bytes:
    """`run`, for a process that ends: tensors in memory that it shares would go with it."""
    return pickle.dumps(run(fabric, plan))


class _Loop:
    def __init__(self, fabric: Any, plan: TrainingPlan, module: Any, model: Any, optimiser: Any, schedule: Any) -> None:
        self.state = TrainingState()
        self._fabric, self._plan, self._options = fabric, plan, plan.options
        self._module, self._model, self._optimiser, self._schedule = module, model, optimiser, schedule
        self._loss = loss_of(plan.options, plan.class_weights, plan.options.label_smoothing)
        self._validation_loss = loss_of(plan.options, plan.class_weights)
        self._metrics = plan.options.metric_functions()
        self._eta = _Eta(plan.options.epochs)

    def run_epoch(self, number: int) -> None:
        seed_everything(self._options.seed, number, self._fabric.global_rank)
        loss = self._train(number)
        metrics = self._fabric.broadcast({"loss": loss, **self._validate(number)})
        self.state.take(metrics, self._module, self._plan)
        self._eta.epoch_done(number)
        if not self._fabric.is_global_zero:
            return
        is_over = self.state.is_over(self._options)
        if is_over or self._plan.checkpoint.is_due():
            self._plan.checkpoint.write(self._checkpoint())
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._plan.say(f"epoch {number}/{self._options.epochs}: {shown}")
        progress.tell(f"epoch {number}/{self._options.epochs}, {shown}{'' if is_over else self._eta.left(number)}")

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this training."""
        found = self._plan.checkpoint.read(self._plan.identity)
        if found is None:
            return
        self._module.load_state_dict(found["module"])
        self._optimiser.load_state_dict(found["optimiser"])
        if self._schedule is not None:
            self._schedule.load_state_dict(found["schedule"])
        self._fabric.strategy.precision.load_state_dict(found["precision"])
        self.state = TrainingState(found["epochs"], found["best_epoch"], found["best"])
        self._eta.resumed(len(self.state.epochs))
        if self._fabric.is_global_zero:
            self._plan.say(f"goes on after epoch {len(self.state.epochs)}, from the checkpoint of a build that stopped")

    def _checkpoint(self) -> dict[str, Any]:
        return {
            "training": self._plan.identity,
            "module": self._module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict() if self._schedule is not None else {},
            "precision": self._fabric.strategy.precision.state_dict(),
            "epochs": self.state.epochs,
            "best_epoch": self.state.best_epoch,
            "best": self.state.best,
        }

    def _train(self, epoch: int) -> float:
        """One pass over the training data; the mean loss."""
        import torch

        self._model.train()
        order = torch.randperm(
            len(self._plan.train), generator=torch.Generator().manual_seed(seed_of(self._options.seed, epoch))
        )
        groups = groups_of(len(order), self._options.batch_size, order)
        sizes = [len(group) for group in groups]
        share = [_share(group, self._fabric.global_rank, self._fabric.world_size) for group in groups]
        losses: list[Any] = []
        for number, (inputs, targets) in enumerate(self._plan.train.batches(share, self._options.workers), 1):
            losses.append(self._step(inputs, targets, number, len(groups)))
            if number % _CHECKED_EVERY == 0 or number == len(groups):
                self._check(losses, epoch, number)
            if self._eta.may_tell() and self._fabric.is_global_zero:
                progress.tell(self._told(epoch, number, len(groups)))
        means = self._fabric.all_reduce(torch.stack(losses).double(), reduce_op="mean").cpu()
        weights = torch.tensor(sizes, dtype=torch.float64)
        return float((means * weights).sum() / weights.sum())

    def _step(self, inputs: Any, targets: Any, number: int, count: int) -> Any:
        """One batch; the optimiser moves after `accumulate` of them, and after the last one."""
        import torch

        inputs, targets = self._fabric.to_device((inputs, targets))
        if self._options.augment is not None:
            with torch.no_grad():
                inputs = _augmented(self._options.augment, inputs)
        accumulate = self._options.accumulate
        moves = number % accumulate == 0 or number == count
        group = accumulate if number <= count - count % accumulate else count % accumulate
        with self._fabric.no_backward_sync(self._model, enabled=not moves):
            loss = self._loss(answer(self._model, inputs), targets)
            self._fabric.backward(loss / group if group > 1 else loss)
        if moves:
            if self._options.clip is not None:
                self._fabric.clip_gradients(
                    self._model, self._optimiser, max_norm=self._options.clip, error_if_nonfinite=False
                )
            self._optimiser.step()
            self._optimiser.zero_grad()
            if self._schedule is not None:
                self._schedule.step()
        return loss.detach()

    def _check(self, losses: list[Any], epoch: int, number: int) -> None:
        """Raise TrainingFaultError for the first loss of the last batches that is no number."""
        import torch

        first = (number - 1) // _CHECKED_EVERY * _CHECKED_EVERY
        finite = torch.stack(losses[first:]).isfinite().cpu()
        if not finite.all():
            batch = first + int((~finite).long().argmax()) + 1
            problem = f"the loss of epoch {epoch}, batch {batch}, is {float(losses[batch - 1])}"
            raise TrainingFaultError(
                problem, "lower lr, or clip=1.0; and look for NaN or very large values in the data"
            )

    def _validate(self, epoch: int) -> dict[str, float]:
        """Loss and metrics over all validation data, in the first process."""
        if self._plan.validation is None or not self._fabric.is_global_zero:
            return {}
        outputs, targets = outputs_of(
            self._model, self._plan.validation, self._options.batch_size, self._fabric.to_device
        )
        found = {"loss": float(self._validation_loss(outputs, targets)), **measured(self._metrics, outputs, targets)}
        for name, value in found.items():
            if not math.isfinite(value):
                raise TrainingFaultError(f"val_{name} of epoch {epoch} is {value}", "lower lr, or clip=1.0")
        return {f"val_{name}": value for name, value in found.items()}

    def _told(self, epoch: int, batch: int, batches: int) -> str:
        return f"epoch {epoch}/{self._options.epochs}, batch {batch}/{batches}{self._eta.left(epoch - 1)}"


class _Eta:
    """How long a training still takes, from the epochs that ran in this process."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._first, self._done = epochs, 0, 0
        self._started = self._told_at = time.monotonic()
        self._spent_s = 0.0

    def resumed(self, after: int) -> None:
        self._first = self._done = after

    def epoch_done(self, number: int) -> None:
        self._done, self._spent_s = number, time.monotonic() - self._started

    def may_tell(self) -> bool:
        now = time.monotonic()
        if now - self._told_at < _TOLD_EVERY_S:
            return False
        self._told_at = now
        return True

    def left(self, done: int) -> str:
        ran = self._done - self._first
        if not ran:
            return ""
        left_s = self._spent_s / ran * (self._epochs - self._first) - (time.monotonic() - self._started)
        return f", {max(left_s, 0):.0f} s left"


def outputs_of(
    model: Any, data: Samples, batch_size: int, to_device: Callable[[Any], Any] = lambda batch: batch
) -> tuple[Any, Any]:
    """What a module answers to data, in eval mode, and the targets; both on the CPU."""
    import torch

    was_training = model.training
    model.eval()
    outputs, targets = [], []
    with torch.no_grad():
        for inputs, expected in data.batches(torch.arange(len(data)).split(batch_size), 0):
            outputs.append(answer(model, to_device(inputs)).float().cpu())
            targets.append(expected.cpu())
    model.train(was_training)
    return torch.cat(outputs), torch.cat(targets)


def measured(metrics: Mapping[str, Metric], outputs: Any, targets: Any) -> dict[str, float]:
    return {name: float(function(outputs, targets)) for name, function in metrics.items()}


def seed_everything(seed: int, epoch: int, rank: int = 0) -> None:
    """Seed Python, numpy and torch for an epoch; epoch 0 is before the first."""
    import numpy as np
    import torch

    number = seed_of(seed, epoch, rank)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Leave the random numbers that follow the block as if it had not been there."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


def seed_of(*numbers: int) -> int:
    """A seed from several numbers, below 2^63, such that neighbours have nothing in common."""
    import numpy as np

    return int(np.random.SeedSequence([number % 2**32 for number in numbers]).generate_state(1, np.uint64)[0] >> 1)


def _share(group: Any, rank: int, world: int) -> Any:
    """The part of a batch that a process trains on; one with fewer samples than processes goes to all of them."""
    return group[rank::world] if len(group) >= world else group


def _augmented(augment: Callable[[Any], Any], inputs: Any) -> Any:
    changed = augment(inputs)
    before, after = len(_first(inputs)), len(_first(changed)) if changed is not None else 0
    if before != after:
        raise TrainingFaultError(
            f"augment gave {after} samples back for {before}", "it takes a batch and returns a batch"
        )
    return changed


def _first(inputs: Any) -> Any:
    found: list[Any] = []
    each(inputs, found.append)
    return found[0]


def loss_of(options: FitOptions, class_weights: Any = None, smoothing: float = 0.0) -> Loss:
    loss = options.loss
    return named_loss(loss, class_weights, smoothing) if isinstance(loss, str) else loss


def _zeros(count: int) -> Any:
    import torch

    return torch.zeros(count, dtype=torch.bool)
