"""Structured pruning of tiny modules: what can be cut, how much, and what is left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from modelwright.errors import StepError
from modelwright.steps.channels import channels_of, chosen, cost_of, cut, prunable, scores, smallest_cut

pytestmark = pytest.mark.torch

X = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)


class Residual(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.out = nn.BatchNorm2d(16), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.a(x)
        return self.out((x + self.norm(self.b(functional.relu(x)))).mean((2, 3)))


class Grouped(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=4)
        self.norm, self.out = nn.GroupNorm(4, 16), nn.Linear(16 * 4, 4)

    def forward(self, x: Any) -> Any:
        return self.out(self.norm(self.b(self.a(x))).flatten(1))


class Depthwise(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 8, 1)
        self.out = nn.Linear(8 * 4, 4)

    def forward(self, x: Any) -> Any:
        return self.out(self.c(self.b(self.a(x))).flatten(1))


class Joined(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(24, 4, 1)

    def forward(self, x: Any) -> Any:
        return self.out(torch.cat([self.a(x), self.b(x)], dim=1))


class Attention(nn.Module):  # type: ignore[misc]
    """Heads by a view of a fixed size, as many write it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.mix = nn.Conv2d(3, 16, 1), nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.out = nn.Linear(16, 64), nn.Linear(64, 16), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.embed(x).flatten(2).transpose(1, 2)
        rows, length, _ = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.mix(heads.transpose(1, 2).reshape(rows, length, 16))
        return self.out((x + self.down(functional.gelu(self.up(x)))).mean(1))


def made(kind: Any) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def forward(module: Any) -> tuple[Any, ...]:
    return (module(X),)


def smaller(module: Any, share: float = 0.5, **options: Any) -> Any:
    found = prunable(module, forward)
    most = share * cost_of(module, forward).flops
    scored = scores(module, forward, found.groups, options.pop("importance", "l2"), options.pop("loss", None))
    settings = {"ranking": "layer", "multiple": 4, **options}
    return smallest_cut(module, forward, found.groups, scored, lambda cost: cost.flops <= most, **settings)


@pytest.mark.parametrize("ranking", ["layer", "global"])
@pytest.mark.parametrize("kind", [Residual, Grouped, Depthwise, Joined, Attention], ids=lambda kind: kind.__name__)
def test_a_module_is_cut_to_a_share_and_answers_in_the_same_shape(kind: Any, ranking: str) -> None:
    module = made(kind)
    before = cost_of(module, forward)
    less = smaller(module, ranking=ranking)
    after = cost_of(less, forward)
    assert after.flops <= before.flops / 2
    assert after.parameters < before.parameters
    assert after.size_bytes < before.size_bytes
    assert less(X).shape == module(X).shape
    assert cost_of(module, forward) == before  # it is a copy that is cut
    assert all(count % 4 == 0 for count in channels_of(less).values())


@pytest.mark.parametrize("kind", [Residual, Grouped, Depthwise, Joined, Attention], ids=lambda kind: kind.__name__)
def test_what_belongs_to_a_channel_leaves_with_it(kind: Any) -> None:
    """Channels that add nothing are cut: the answers stay what they were, so the right inputs left, too."""
    module = made(kind)
    for group in prunable(module, forward).groups:
        size = group.channels // group.blocks
        places = [block * size + 1 for block in range(group.blocks)]
        silent = cut(module, forward, {})
        with torch.no_grad():
            for name in group.layers:
                layer = silent.get_submodule(name)
                layer.weight[places] = 0
                layer.bias[places] = 0
        if kind is Residual:  # the batch norm adds its own share to a silent channel
            silent.norm.bias.data[places] = silent.norm.running_mean[places] = 0
        if kind is Grouped and group.root == "b":
            continue  # a group norm divides by what all of its channels hold
        if kind is Depthwise and group.root == "a":
            silent.b.weight.data[places] = silent.b.bias.data[places] = 0
        less = cut(silent, forward, {group.root: places})
        torch.testing.assert_close(less(X), silent(X), msg=lambda text, group=group: f"{group}: {text}")


def test_outputs_and_layers_that_forward_needs_whole_stay() -> None:
    found = prunable(made(Attention), forward)
    assert [group.root for group in found.groups] == ["down", "up"]
    assert found.groups[0].layers == ("down", "mix", "embed")
    assert found.left["out"] == "its channels are those of an output"
    assert found.left["qkv"].startswith("forward fails without one of its channels: shape '[1, 16, 3, 2, 8]'")


def test_layers_that_are_kept_stay() -> None:
    found = prunable(made(Attention), forward, keep=["u*"])
    assert [group.root for group in found.groups] == ["down"]
    assert found.left["up"] == "model.yaml keeps it"


def test_keep_must_name_a_layer() -> None:
    with pytest.raises(StepError, match=r"keep: no layer matches 'upp'\n  hint: did you mean 'up'\?"):
        prunable(made(Attention), forward, keep=["upp"])


def test_frozen_weights_are_cut_and_stay_frozen() -> None:
    module = made(Residual)
    module.a.requires_grad_(False)
    less = smaller(module)
    assert not less.a.weight.requires_grad
    assert less.b.weight.requires_grad
    assert not module.a.weight.requires_grad


def test_a_module_without_layers_cannot_be_traced() -> None:
    with pytest.raises(StepError, match="no convolution and no linear layer between inputs and outputs"):
        prunable(nn.Sequential(nn.ReLU()), forward)


def test_a_forward_that_fails_is_said() -> None:
    with pytest.raises(
        StepError, match=r"torch-pruning cannot trace the module: Given groups=1, (.*\n)*.*torch.no_grad"
    ):
        prunable(nn.Sequential(nn.Conv2d(4, 4, 1)), forward)


def test_taylor_cuts_what_the_loss_does_not_need() -> None:
    module = made(Joined)
    with torch.no_grad():
        module.a.weight[:8] *= 100  # large, and of no use:
        module.out.weight[:, :8] = 0
    group = next(group for group in prunable(module, forward).groups if group.root == "a")
    scored = scores(module, forward, [group], "taylor", lambda traced: traced(X).square().mean())
    assert chosen([group], scored, 0.5, ranking="layer", multiple=4) == {"a": [0, 1, 2, 3, 4, 5, 6, 7]}
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_loss_must_depend_on_the_module() -> None:
    module = made(Joined)
    groups = prunable(module, forward).groups
    with pytest.raises(StepError, match="loss: expected one value that depends on the module"):
        scores(module, forward, groups, "taylor", lambda traced: torch.tensor(1.0))
    with pytest.raises(StepError, match="loss: it does not depend on 'b'"):
        scores(module, forward, groups, "taylor", lambda traced: traced.a(X).mean())


def test_bn_scale_needs_batch_norms() -> None:
    module = made(Joined)
    with pytest.raises(StepError, match="importance bn_scale: 'a' and what belongs to it hold nothing to measure"):
        scores(module, forward, prunable(module, forward).groups, "bn_scale")
    assert channels_of(smaller(made(Residual), importance="bn_scale")) == {"a": 8, "b": 8, "out": 4}
