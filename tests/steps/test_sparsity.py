"""2:4 sparsity: the masks, and that training keeps them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from modelwright.errors import StepError
from modelwright.steps.sparsity import bake_masks, is_sparse, mask_layers, mask_of

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("shape", [(8, 8, 3, 3), (4, 8), (4, 4, 5)], ids=str)
def test_two_of_every_four_along_the_input_channels_are_kept(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    mask = mask_of(weight)
    by_fours = mask.movedim(1, -1).reshape(-1, 4)
    assert by_fours.sum(dim=1).eq(2).all()
    kept = (weight.abs() * mask).movedim(1, -1).reshape(-1, 4).sum(dim=1)
    largest = weight.abs().movedim(1, -1).reshape(-1, 4).topk(2, dim=1).values.sum(dim=1)
    torch.testing.assert_close(kept, largest)
    assert is_sparse(weight * mask)
    assert not is_sparse(weight)


def test_masks_hold_while_a_module_is_trained() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))
    assert list(mask_layers(module)) == ["2", "4"]  # the first has three input channels
    optimiser = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        module(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimiser.step()
    bake_masks(module)
    assert is_sparse(module[2].weight.detach())
    assert is_sparse(module[4].weight.detach())
    assert [name for name, _ in module[2].named_parameters()] == ["bias", "weight"]


def test_a_module_without_fitting_layers_is_refused() -> None:
    with pytest.raises(StepError, match="no linear layer or convolution has a multiple of four input channels"):
        mask_layers(nn.Linear(3, 4))
