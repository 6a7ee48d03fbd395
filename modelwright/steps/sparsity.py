"""2:4 sparsity: of every four weights along the input channels of a layer, the two smallest are zero.

The rule, and magnitude as the choice, are those of Mishra et al., "Accelerating Sparse Deep Neural Networks"
(arXiv:2104.08378). The weights keep their shape: only the sparse tensor cores of Ampere and later GPUs gain, through
TensorRT with its flag SPARSE_WEIGHTS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelwright.errors import StepError

if TYPE_CHECKING:
    from torch import Tensor, nn

_KEPT, _OF = 2, 4


def sparse_layers(module: nn.Module) -> dict[str, nn.Module]:
    """{name: layer} that the rule fits: linear layers and convolutions whose input channels are a multiple of four."""
    from torch import nn

    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and layer.weight.shape[1] % _OF == 0
    }


def mask_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Put masks on the weights, which hold while they are trained; the layers, as `sparse_layers` names them."""
    from torch.nn.utils import prune

    layers = sparse_layers(module)
    if not layers:
        raise StepError(
            "sparsity 2:4: no linear layer or convolution has a multiple of four input channels", "leave sparsity out"
        )
    for layer in layers.values():
        prune.custom_from_mask(layer, "weight", mask_of(layer.weight.detach()))
    return layers


def bake_masks(module: nn.Module) -> None:
    """Make the masks part of the weights: the module is an ordinary one again."""
    from torch.nn.utils import prune

    for layer in module.modules():
        if hasattr(layer, "weight_mask"):
            prune.remove(layer, "weight")


def mask_of(weight: Tensor) -> Tensor:
    """1 at the two largest of every four weights along axis 1, the input channels; 0 at the others."""
    import torch

    groups = weight.transpose(1, -1)  # the input channels last
    blocks = groups.reshape(*groups.shape[:-1], -1, _OF)
    kept = blocks.abs().argsort(dim=-1, descending=True, stable=True)[..., :_KEPT]
    mask = torch.zeros_like(blocks).scatter_(-1, kept, 1.0)
    return mask.reshape(groups.shape).transpose(1, -1).contiguous()


def is_sparse(weight: Tensor) -> bool:
    return bool((weight * (1 - mask_of(weight)) == 0).all())
