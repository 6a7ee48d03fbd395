"""Structured pruning: whole channels leave a module, with everything that belongs to them.

torch-pruning finds what belongs together: the output channels of a layer, the batch norm behind it, the inputs of the
layers that read it (DepGraph, arXiv:2301.12900). What is left is an ordinary, dense and smaller module. Which of these
groups can be cut is tried, not guessed: a channel of each is cut in a copy, which must run and keep its outputs.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from modelwright.errors import StepError, one_line
from modelwright.suggest import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

Importance = Literal["l1", "l2", "bn_scale", "taylor"]
Ranking = Literal["layer", "global"]
Forward = Callable[["nn.Module"], "tuple[Tensor, ...]"]  # a module → its outputs on an example, in eval mode

_GRAIN = 512  # a cut is a number of 512ths of the channels
UNTRACED = "torch-pruning follows gradients: forward must compute them, without torch.no_grad"


@dataclass(frozen=True)
class Cost:
    """What a module costs to run once on the example, and to keep."""

    parameters: int
    size_bytes: int  # of parameters and buffers
    flops: int  # of convolutions, matrix products and attention: two for each multiplication and addition


@dataclass(frozen=True)
class Group:
    """Channels that leave together: those of the layer `root`, and all that follows from them."""

    root: str
    layers: tuple[str, ...]  # whose output channels these are
    channels: int
    blocks: int  # parts of the channels that must stay of one size, such as the groups of a grouped convolution


@dataclass(frozen=True)
class Prunable:
    groups: tuple[Group, ...]
    left: Mapping[str, str] = field(default_factory=dict)  # layer → why its channels stay


def cost_of(module: nn.Module, forward: Forward) -> Cost:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(module)
    tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return Cost(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        size_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        flops=counter.get_total_flops(),
    )


def channels_of(module: nn.Module) -> dict[str, int]:
    """{layer: its output channels} of convolutions and linear layers."""
    found = {}
    for name, layer in module.named_modules():
        channels = getattr(layer, "out_channels", getattr(layer, "out_features", None))
        if isinstance(channels, int) and hasattr(layer, "weight"):
            found[name] = channels
    return found


def prunable(module: nn.Module, forward: Forward, keep: Sequence[str] = ()) -> Prunable:
    """The groups that can be cut, and the layers that cannot. `keep` are layers that stay: names, or patterns with `*`.

    Raises StepError where nothing can be traced, or `keep` names no layer.
    """
    graph, groups = _traced_groups(module, forward)
    del graph
    _check_keep(keep, [name for group in groups for name in group.layers])
    shapes = _shapes(module, forward)
    cut: list[Group] = []
    left: dict[str, str] = {}
    for group in groups:
        if any(fnmatchcase(name, pattern) for name in group.layers for pattern in keep):
            why = "model.yaml keeps it"
        else:
            why = _refused(module, forward, group, shapes)
        if why:
            left |= dict.fromkeys(group.layers, why)
        else:
            cut.append(group)
    return Prunable(tuple(cut), left)


def scores(
    module: nn.Module,
    forward: Forward,
    groups: Sequence[Group],
    importance: Importance,
    loss: Callable[[nn.Module], Tensor] | None = None,
) -> dict[str, Tensor]:
    """{root: importance of each of its channels, or of each place in its blocks}, a mean of 1 in each group.

    `taylor` (Molchanov et al., CVPR 2019) needs the `loss` of the module on data.
    """
    import torch_pruning

    measure = {
        "l1": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=1),
        "l2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
        "bn_scale": torch_pruning.importance.BNScaleImportance,
        "taylor": torch_pruning.importance.GroupTaylorImportance,
    }[importance]()
    if importance == "taylor" and loss is not None:
        module = _with_gradients(module, loss, groups)
    found = {}
    with _traced(module, forward) as graph:
        for group in groups:
            score = measure(_cut_group(graph, module, group.root, range(group.channels)))
            if score is None:
                raise StepError(
                    f"importance {importance}: '{group.root}' and what belongs to it hold nothing to measure",
                    "bn_scale needs batch norms; l2 works for every layer",
                )
            found[group.root] = score.detach().view(group.blocks, -1).mean(0).float()
    return found


def _with_gradients(module: nn.Module, loss: Callable[[nn.Module], Tensor], groups: Sequence[Group]) -> nn.Module:
    """A copy whose weights hold the gradients of its loss."""
    import torch

    traced = copy.deepcopy(module)
    traced.requires_grad_(True)
    value = loss(traced)
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.grad_fn is None:
        raise StepError("loss: expected one value that depends on the module", "return a tensor: cross_entropy(…)")
    value.backward()
    for layer in (layer for group in groups for layer in group.layers):
        if traced.get_submodule(layer).weight.grad is None:
            raise StepError(f"loss: it does not depend on '{layer}'", "compute it from the module's outputs")
    return traced.eval()


def smallest_cut(
    module: nn.Module,
    forward: Forward,
    groups: Sequence[Group],
    scored: Mapping[str, Tensor],
    is_enough: Callable[[Cost], bool],
    *,
    ranking: Ranking,
    multiple: int,
) -> nn.Module:
    """A copy with the fewest channels cut that is `enough`; the smallest that there is where none is.

    What is cut is found by halving: a cut of more channels never costs more.
    """

    def cut_by(grain: int) -> nn.Module:
        return cut(module, forward, chosen(groups, scored, grain / _GRAIN, ranking=ranking, multiple=multiple))

    low, high, best = 0, _GRAIN, cut_by(_GRAIN)
    while high - low > 1:
        middle = (low + high) // 2
        candidate = cut_by(middle)
        if is_enough(cost_of(candidate, forward)):
            high, best = middle, candidate
        else:
            low = middle
    return best


def chosen(
    groups: Sequence[Group], scored: Mapping[str, Tensor], share: float, *, ranking: Ranking, multiple: int
) -> dict[str, list[int]]:
    """{root: channels to cut}: the least important `share` of each layer's, or of all together (`global`).

    What stays is a multiple of `multiple` channels, rounded up, and at least that many.
    """
    import torch

    limit = math.inf
    if ranking == "global" and groups:
        pooled = torch.cat([scored[group.root].repeat(group.blocks) for group in groups]).sort().values
        count = int(share * len(pooled))
        limit = float(pooled[count]) if count < len(pooled) else math.inf
    found = {}
    for group in groups:
        score = scored[group.root]
        wanted = int((score < limit).sum()) if ranking == "global" else int(share * len(score))
        step = multiple // math.gcd(multiple, group.blocks)
        stay = max(math.ceil((len(score) - wanted) / step), 1) * step
        places = score.argsort(stable=True)[: max(len(score) - stay, 0)].tolist()
        if places:
            found[group.root] = sorted(block * len(score) + place for block in range(group.blocks) for place in places)
    return found


def cut(module: nn.Module, forward: Forward, channels: Mapping[str, Collection[int]]) -> nn.Module:
    """A copy of the module without these output channels of these layers."""
    smaller = copy.deepcopy(module)
    if channels:
        with _traced(smaller, forward) as graph:
            for root, places in channels.items():
                _cut_group(graph, smaller, root, places).prune()
    return smaller


def _check_keep(keep: Sequence[str], layers: Sequence[str]) -> None:
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in layers):
            known = f"the layers are {', '.join(layers)}"
            raise StepError(f"keep: no layer matches '{pattern}'", did_you_mean(pattern, layers) or known)


def _refused(module: nn.Module, forward: Forward, group: Group, shapes: list[list[int]]) -> str:
    """Why the module cannot do without a channel of this group; "" if it can."""
    size = group.channels // group.blocks
    if size < 2:
        return "it has a single channel"
    try:
        after = _shapes(cut(module, forward, {group.root: [block * size for block in range(group.blocks)]}), forward)
    except Exception as error:  # whatever the module's code says to tensors of another size
        return f"forward fails without one of its channels: {one_line(error)}"
    return "" if after == shapes else "its channels are those of an output"


def _shapes(module: nn.Module, forward: Forward) -> list[list[int]]:
    import torch

    with torch.no_grad():
        return [list(tensor.shape) for tensor in forward(module)]


@contextmanager
def _traced(module: nn.Module, forward: Forward) -> Iterator[Any]:
    """torch-pruning's graph of a module. It follows autograd, so every weight takes part while it is made."""
    import torch
    import torch_pruning

    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    modes = {name: part.training for name, part in module.named_modules()}
    try:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore", UserWarning)  # of weights that no layer holds: _refused tries them
            try:
                graph = torch_pruning.DependencyGraph().build_dependency(
                    module, example_inputs=None, forward_fn=lambda traced, _: forward(traced)
                )
            except Exception as error:
                raise StepError(f"torch-pruning cannot trace the module: {one_line(error)}", UNTRACED) from error
        yield graph
    finally:
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in frozen and parameter.is_floating_point())
        for name, part in module.named_modules():
            part.training = modes[name]


def _traced_groups(module: nn.Module, forward: Forward) -> tuple[Any, list[Group]]:
    from torch import nn

    names = {layer: name for name, layer in module.named_modules()}
    roots = (nn.modules.conv._ConvNd, nn.Linear)
    with _traced(module, forward) as graph:
        groups = []
        for found in graph.get_all_groups(root_module_types=roots):
            outs = [item.dep.target.module for item in found if graph.is_out_channel_pruning_fn(item.dep.handler)]
            layers = tuple(names[layer] for layer in outs if isinstance(layer, roots))
            groups.append(Group(layers[0], layers, len(found[0].idxs), _blocks(graph, found)))
    if not groups:
        raise StepError("torch-pruning finds no convolution and no linear layer between inputs and outputs", UNTRACED)
    return graph, groups


def _blocks(graph: Any, group: Any) -> int:
    """The parts that the channels of a group fall into, as every layer of it sees them."""
    from torch import nn

    found = [1]
    for item in group:
        layer = item.dep.target.module
        pruner = graph.get_pruner_of_module(layer)
        depthwise = isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels
        if pruner is not None and not depthwise:
            is_out = graph.is_out_channel_pruning_fn(item.dep.handler)
            found.append(pruner.get_out_channel_groups(layer) if is_out else pruner.get_in_channel_groups(layer))
    return math.lcm(*found)


def _cut_group(graph: Any, module: nn.Module, root: str, places: Collection[int]) -> Any:
    layer = module.get_submodule(root)
    return graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(places))
