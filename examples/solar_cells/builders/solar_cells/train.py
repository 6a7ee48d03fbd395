"""Trains the network on the training part, after a cross-validation that says how far its accuracy can be trusted."""

from __future__ import annotations

from functools import partial

import torch
from data import split
from network import CellNet, Inspector, Preparation
from torch import Tensor, nn
from torch.nn import functional

from modelwright.training import fit, k_fold

_BATCH = 24
_SHIFT = 4  # pixels of a hundred, either way
_LIGHT, _CONTRAST = 0.1, 0.2  # at most, either way


def train(epochs: int, folds: int, fold_epochs: int, lr: float, seed: int) -> nn.Module:
    """The network of the last epoch: no epoch is chosen, so no photograph is held out for that."""
    cells = split()[0]
    data = _prepared(torch.from_numpy(cells.photographs)), torch.from_numpy(cells.thirds)
    weights = _balanced(data[1])
    options = {
        "batch_size": _BATCH,
        "lr": lr,
        "weight_decay": 0.03,
        "loss": ExpectedCrossEntropy(weights),
        "metrics": {"accuracy": accuracy},
        "clip": 1.0,
        "augment": augment,
        "seed": seed,
    }
    make = partial(_network, weights)
    if folds:
        k_fold(make, data, folds, epochs=fold_epochs, **options)
    return Inspector(fit(make, data, epochs=epochs, **options).to(memory_format=torch.contiguous_format))


class ExpectedCrossEntropy:
    """The weighted cross entropy of two classes, where the expert's probability says how much of each a cell is."""

    def __init__(self, class_weights: tuple[float, float]) -> None:
        self._weights = class_weights

    def __call__(self, logits: Tensor, thirds: Tensor) -> Tensor:
        defective = thirds / 3
        weighted = torch.stack([1 - defective, defective], dim=1) * logits.new_tensor(self._weights)
        return -(weighted * functional.log_softmax(logits, dim=1)).sum(1).mean()


def accuracy(logits: Tensor, thirds: Tensor) -> float:
    return float((logits.argmax(dim=1) == (thirds >= 2)).float().mean())


def _balanced(thirds: Tensor) -> tuple[float, float]:
    """A weight for each class, so that both count alike in the loss."""
    defective = float(thirds.float().mean()) / 3
    return 0.5 / (1 - defective), 0.5 / defective


def _network(class_weights: tuple[float, float]) -> nn.Module:
    return CellNet(class_weights).to(memory_format=torch.channels_last)


def _prepared(photographs: Tensor) -> Tensor:
    preparation = Preparation()
    parts = [preparation(part) for part in photographs.split(256)]
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def augment(prepared: Tensor) -> Tensor:
    """A cell may lie any way round: mirrored and turned by quarters, shifted a little, in another light."""
    count, size = len(prepared), prepared.shape[-1]
    if torch.rand(()) < 0.5:
        prepared = prepared.transpose(2, 3)
    upside_down, mirrored = torch.rand(2, count, 1, 1, 1) < 0.5
    prepared = torch.where(upside_down, prepared.flip(2), prepared)
    prepared = torch.where(mirrored, prepared.flip(3), prepared)
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2,)).tolist()
    padded = functional.pad(prepared, [_SHIFT] * 4, mode="replicate")
    moved = padded[:, :, down : down + size, right : right + size]
    contrast, light = 2 * torch.rand(2, count, 1, 1, 1) - 1
    changed = moved * (1 + _CONTRAST * contrast)
    changed[:, :1] += _LIGHT * light
    return changed.contiguous(memory_format=torch.channels_last)
