"""Optimisers and schedules that have names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MOMENTUM = 0.9


def optimiser_for(module: Any, optimiser: str | Callable[..., Any], lr: float, weight_decay: float) -> Any:
    """An optimiser of a module's parameters. A function is called with parameter groups and the learning rate."""
    import torch

    groups = parameter_groups(module, weight_decay)
    if not isinstance(optimiser, str):
        return optimiser(groups, lr)
    if optimiser == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=_MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=lr)


def parameter_groups(module: Any, weight_decay: float) -> list[dict[str, Any]]:
    """What is trained, in two groups: weights decay; biases, and the scales of norms, do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def schedule_for(optimiser: Any, schedule: str | Callable[..., Any], lr: float, steps: int) -> Any:
    """A schedule over all steps of the optimiser, or None. A function is called with the optimiser and the steps."""
    from torch.optim import lr_scheduler

    if not isinstance(schedule, str):
        return schedule(optimiser, steps)
    if schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps)
    return lr_scheduler.CosineAnnealingLR(optimiser, steps) if schedule == "cosine" else None
