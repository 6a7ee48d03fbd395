"""Data in batches: arrays in memory, or a Dataset. Seed and epoch alone say which samples are in which batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Batch = tuple[Any, Any]  # inputs, targets


class Samples(Protocol):
    """What `fit` trains on."""

    def __len__(self) -> int: ...

    def labels(self) -> Any:
        """The targets as an array of whole numbers, where they are classes; None elsewhere."""

    def batches(self, indices: Sequence[Any], workers: int) -> Iterator[Batch]:
        """One batch for each group of indices."""

    def subset(self, indices: Any) -> Samples: ...


def samples_of(data: Any, what: str) -> Samples:
    """`(inputs, targets)` or a Dataset of such pairs. Raises ValueError; `what` is how messages call it.

    Inputs are an array, or several: a tuple for positional arguments of the module, a mapping for named ones.
    """
    if isinstance(data, Arrays | Items):
        return data
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise ValueError(f"{what}: expected (inputs, targets), got {len(data)} of them")
        return _arrays(data[0], data[1], what)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "shape"):
        if not len(data):
            raise ValueError(f"{what}: has no samples")
        return Items(data)
    raise ValueError(f"{what}: expected (inputs, targets) or a Dataset with a length, got {type(data).__name__}")


@dataclass(frozen=True)
class Arrays:
    """Tensors in memory: a batch is one indexing operation."""

    inputs: Any  # a tensor, a tuple of tensors, or {name: tensor}
    targets: Any

    def __len__(self) -> int:
        return len(self.targets)

    def labels(self) -> Any:
        return None if self.targets.is_floating_point() or self.targets.ndim > 1 else self.targets.numpy()

    def batches(self, indices: Sequence[Any], workers: int) -> Iterator[Batch]:
        for group in indices:
            yield each(self.inputs, lambda tensor, group=group: tensor[group]), self.targets[group]

    def subset(self, indices: Any) -> Arrays:
        import torch

        chosen = torch.as_tensor(indices)
        return Arrays(each(self.inputs, lambda tensor: tensor[chosen]), self.targets[chosen])


@dataclass(frozen=True)
class Items:
    """A Dataset, whose items are collated by torch, in `workers` processes."""

    dataset: Any
    chosen: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.dataset) if self.chosen is None else len(self.chosen)

    def labels(self) -> Any:
        """The attribute `targets` or `labels`, as torchvision's data sets have it."""
        import numpy as np

        found = getattr(self.dataset, "targets", getattr(self.dataset, "labels", None))
        if found is None or callable(found) or len(found) != len(self.dataset):
            return None
        array = np.asarray(found)
        array = array if self.chosen is None else array[list(self.chosen)]
        return array if array.ndim == 1 and array.dtype.kind in "iu" else None

    def batches(self, indices: Sequence[Any], workers: int) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        groups = [[self._place(int(index)) for index in group] for group in indices]
        for item in DataLoader(self.dataset, batch_sampler=groups, num_workers=workers):
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise ValueError(f"an item of {type(self.dataset).__name__} must be a pair (inputs, target)")
            yield item[0], item[1]

    def _place(self, index: int) -> int:
        return index if self.chosen is None else int(self.chosen[index])

    def subset(self, indices: Any) -> Items:
        return Items(self.dataset, [self._place(int(index)) for index in indices])


def each(inputs: Any, function: Any) -> Any:
    """Apply a function to every tensor of a batch's inputs."""
    if isinstance(inputs, Mapping):
        return {name: each(value, function) for name, value in inputs.items()}
    return tuple(each(value, function) for value in inputs) if isinstance(inputs, tuple | list) else function(inputs)


def answer(module: Any, inputs: Any) -> Any:
    """What a module makes of a batch: one tensor, positional arguments, or named ones."""
    if isinstance(inputs, Mapping):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple | list) else module(inputs)


def groups_of(count: int, size: int, order: Any) -> list[Any]:
    """Indices in groups of `size`. A last group of one joins the group before: batch normalisation needs two."""
    groups = list(order.split(size))
    if len(groups) > 1 and size > 1 and count % size == 1:
        import torch

        groups[-2:] = [torch.cat(groups[-2:])]
    return groups


def _arrays(inputs: Any, targets: Any, what: str) -> Arrays:
    converted = each(inputs, _tensor)
    answers = _tensor(targets)
    lengths = {"targets": len(answers)}
    parts = (
        converted.items()
        if isinstance(converted, Mapping)
        else enumerate(converted if isinstance(converted, tuple) else (converted,))
    )
    lengths |= {
        f"inputs '{name}'"
        if isinstance(converted, Mapping)
        else f"inputs[{name}]"
        if isinstance(converted, tuple)
        else "inputs": len(part)
        for name, part in parts
    }
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{count:,} {name}" for name, count in lengths.items())
        raise ValueError(f"{what}: inputs and targets must have the same length, got {told}")
    if not len(answers):
        raise ValueError(f"{what}: has no samples")
    return Arrays(converted, answers)


def _tensor(array: Any) -> Any:
    """As torch trains with it: floats in its default precision, whole numbers as they are, classes as int64."""
    import numpy as np
    import torch

    try:
        tensor = torch.as_tensor(array if isinstance(array, torch.Tensor) else np.ascontiguousarray(array)).detach()
    except (TypeError, ValueError) as error:
        raise ValueError(f"an array cannot be a tensor: {error}") from None
    if not tensor.ndim:
        raise ValueError("expected arrays with a value for each sample, got a single number")
    if tensor.is_floating_point():
        return tensor.to(torch.get_default_dtype())
    return tensor.long() if tensor.ndim == 1 else tensor
