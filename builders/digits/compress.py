"""What the smaller variants of this model learn from: the training images, shifted, and a few epochs of fine-tuning."""

from __future__ import annotations

import numpy as np
import torch
from data import split
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

_BATCH = 64
_SHIFT = 1  # pixels, either way: a digit stays the same digit


def training(epoch: int) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
    """The training images and their labels; each epoch moves every image by up to a pixel in each direction."""
    images, labels = split()[0], split()[2]
    random = np.random.default_rng(epoch)
    size = images.shape[-1]
    padded = np.pad(images[:, 0], [(0, 0), (_SHIFT, _SHIFT), (_SHIFT, _SHIFT)])
    top, left = random.integers(0, 2 * _SHIFT + 1, (2, len(images), 1))
    rows, columns = top + np.arange(size), left + np.arange(size)
    moved = padded[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return {"image": moved[:, None], "labels": labels}


def finetune(module: nn.Module, epochs: int, lr: float, seed: int) -> nn.Module:
    """Train a module that was trained before and then changed, with a learning rate that falls to zero."""
    torch.manual_seed(seed)
    module.train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for epoch in range(epochs):
        data = training(epoch)
        images, labels = torch.from_numpy(data["image"]), torch.from_numpy(data["labels"])
        for batch in torch.randperm(len(images)).split(_BATCH):
            loss = functional.cross_entropy(module(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    return module.eval()
