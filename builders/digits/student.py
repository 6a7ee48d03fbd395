"""A network with a tenth of the weights of train.py's, which learns from it."""

from __future__ import annotations

from torch import Tensor, nn


class StudentNet(nn.Module):
    """(N, 1, 8, 8) grey values in 0..1 → (N, 10) logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.BatchNorm2d(2 * channels), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(2 * channels * 2 * 2, 10))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(image))
        return logits


def student(channels: int) -> nn.Module:
    """An untrained student; 16 channels fill a vector register of AVX-512."""
    return StudentNet(channels)
