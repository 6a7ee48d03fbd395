"""An EfficientNet in small: (fused) inverted bottlenecks with squeeze-and-excitation and stochastic depth."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

# Width, expansion, stride, whether the first two convolutions are fused into one, as in EfficientNetV2's early stages:
# depthwise convolutions over large maps take longer than full ones on a CPU.
_BLOCKS = (
    (24, 2, 2, True),
    (32, 4, 2, True),
    (64, 4, 2, False),
    (64, 4, 1, False),
    (96, 4, 2, False),
    (96, 4, 1, False),
)
_STEM, _HEAD = 16, 128
_POOL = 3  # 300 pixels become 100


class Preparation(nn.Module):
    """(N, 300, 300) grey values of 0 to 255 → (N, 3, 100, 100).

    The channels are the mean of each 3x3 pixels, and how far the darkest and the brightest of them are from it. So a
    crack that is one pixel wide is still seen in a ninth of the pixels.
    """

    def forward(self, photograph: Tensor) -> Tensor:
        grey = photograph.float().unsqueeze(1) / 255
        mean = functional.avg_pool2d(grey, _POOL)
        darkest, brightest = -functional.max_pool2d(-grey, _POOL), functional.max_pool2d(grey, _POOL)
        return torch.cat([mean, mean - darkest, brightest - mean], dim=1)


class SqueezeExcitation(nn.Module):
    """Weigh channels by what the whole map has of them."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, features: Tensor) -> Tensor:
        weighed: Tensor = features * self.weights(features.mean((2, 3), keepdim=True))
        return weighed


class Bottleneck(nn.Module):
    """Expand, filter each channel, weigh channels, project; `fused` expands and filters at once."""

    def __init__(self, given: int, width: int, expansion: int, stride: int, fused: bool, dropped: float) -> None:
        super().__init__()
        wide = given * expansion
        if fused:
            layers = [*_convolution(given, wide, 3, stride)]
        else:
            layers = [*_convolution(given, wide, 1), *_convolution(wide, wide, 3, stride, groups=wide)]
            layers.append(SqueezeExcitation(wide, given // 4))
        layers += [nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width)]
        self.body = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and given == width
        self.dropped = dropped  # the share of samples that pass by in training

    def forward(self, features: Tensor) -> Tensor:
        changed: Tensor = self.body(features)
        if not self.has_shortcut:
            return changed
        if self.training and self.dropped:
            kept = torch.rand(len(changed), 1, 1, 1, device=changed.device) >= self.dropped
            changed = changed * kept / (1 - self.dropped)
        return features + changed


class CellNet(nn.Module):
    """(N, 3, 100, 100) of `Preparation` → (N, 2) logits of functional and defective.

    `class_weights` are those of the training's loss. They move the logits, and outside of training they are taken out
    again, so that the answer is how probable a defect is among cells as they come. Outside of training it is also the
    mean over four views of the cell: as it is, and mirrored either way and both ways.
    """

    def __init__(self, class_weights: Sequence[float], stochastic_depth: float = 0.05, dropout: float = 0.1) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm2d(3), *_convolution(3, _STEM, 3, 2)]
        given = _STEM
        for number, (width, expansion, stride, fused) in enumerate(_BLOCKS):
            dropped = stochastic_depth * number / (len(_BLOCKS) - 1)
            layers.append(Bottleneck(given, width, expansion, stride, fused, dropped))
            given = width
        self.features = nn.Sequential(*layers, *_convolution(given, _HEAD, 1))
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * _HEAD, 2))
        self.register_buffer("log_weights", torch.tensor(class_weights).log())

    def forward(self, prepared: Tensor) -> Tensor:
        if self.training:
            return self._logits(prepared)
        views = torch.cat([prepared, prepared.flip(2), prepared.flip(3), prepared.flip(2, 3)])
        return self._logits(views).reshape(4, -1, 2).mean(0) - self.log_weights

    def _logits(self, prepared: Tensor) -> Tensor:
        features = self.features(prepared)
        # A defect may fill the cell or be in one place: the mean and the largest value of each channel.
        logits: Tensor = self.classifier(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))
        return logits


class Inspector(nn.Module):
    """What is served: (N, 300, 300) photographs → (N, 2) probabilities of functional and defective."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.preparation, self.network = Preparation(), network

    def forward(self, photograph: Tensor) -> Tensor:
        return torch.softmax(self.network(self.preparation(photograph)), dim=1)


def _convolution(given: int, width: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(given, width, size, stride, size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]
