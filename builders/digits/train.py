"""A small convolutional network for 8x8 digits."""

from __future__ import annotations

import math

import torch
from data import split
from torch import Tensor, nn
from torch.nn import functional

_BATCH = 64
_SHIFT = 1  # pixels, either way: a digit stays the same digit


class DigitsNet(nn.Module):
    """(N, 1, 8, 8) grey values in 0..1 → (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 2 * 2, 10))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(image))
        return logits


def train(epochs: int, lr: float, seed: int) -> nn.Module:
    """Fit on the training part; the network in eval mode, the same weights every time for the same numbers."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    images, labels = torch.from_numpy(split()[0]), torch.from_numpy(split()[2])
    model = DigitsNet().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    steps = epochs * math.ceil(len(images) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=lr, total_steps=steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(_BATCH):
            loss = functional.cross_entropy(model(_shifted(images[batch])), labels[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def _shifted(images: Tensor) -> Tensor:
    """Each image moved by up to a pixel in each direction, zeros moved in."""
    size = images.shape[-1]
    padded = functional.pad(images, [_SHIFT] * 4)
    top, left = torch.randint(0, 2 * _SHIFT + 1, (2, len(images), 1))
    rows, columns = top + torch.arange(size), left + torch.arange(size)
    return padded[torch.arange(len(images))[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]
