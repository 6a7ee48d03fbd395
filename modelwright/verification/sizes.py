"""A dynamic dimension is worth nothing if it was tested at one size: a second one is tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from modelwright.errors import ServerError, StepError
from modelwright.triton.arrays import repeated
from modelwright.triton.tensors import Tensors
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import shapes

Dims = Mapping[str, Sequence[int | str]]  # per input, without the batch dimension; a str or -1 is dynamic


def check_sizes(runner: SampleRunner, samples: Sequence[Tensors], dims: Dims) -> str:
    """Ask for a sample of twice, then of half the size, where all samples are of one. What cannot be tested, or "".

    All untested dimensions change together: those that must be equal stay equal. A size that fails is no fault, because
    models have limits that no dimension declares; but somebody should know.
    """
    untested = _untested(samples, dims)
    if not untested:
        return ""
    tensor, axis = next((place for place in untested if _size(samples[0], place) > 1), untested[0])
    sizes, reasons = [], []
    for change in (_double, _half):
        other = _resized(samples[0], untested, change)
        if shapes(other) == shapes(samples[0]):
            continue
        sizes.append(str(_size(other, (tensor, axis))))
        try:
            runner.ask([other])
        except (StepError, ServerError) as error:
            reasons.append(error.message)
        else:
            return ""
    size, others = _size(samples[0], (tensor, axis)), " and at ".join(sizes)
    return (
        f"dimension {axis} of '{tensor}' was tested at {size} only: at {others} the model fails ({reasons[0]});"
        " give samples of two sizes, or declare the size under inputs"
    )


def _double(size: int) -> int:
    return 2 * size or 1


def _half(size: int) -> int:
    return size // 2 or size


def _size(sample: Tensors, place: tuple[str, int]) -> int:
    tensor, axis = place
    return int(sample[tensor].shape[axis])


def _untested(samples: Sequence[Tensors], dims: Dims) -> list[tuple[str, int]]:
    """(tensor, axis) of dynamic dimensions, each name at one size wherever it stands."""
    sizes: dict[str | tuple[str, int], set[int]] = {}
    places = [
        (dim if isinstance(dim, str) else (tensor, axis), tensor, axis)
        for tensor, shape in dims.items()
        for axis, dim in enumerate(shape)
        if isinstance(dim, str) or dim == -1
    ]
    for key, tensor, axis in places:
        sizes.setdefault(key, set()).update(sample[tensor].shape[axis] for sample in samples)
    return [(tensor, axis) for key, tensor, axis in places if len(sizes[key]) == 1]


def _resized(sample: Tensors, places: Sequence[tuple[str, int]], change: Callable[[int], int]) -> Tensors:
    resized = dict(sample)
    for tensor, axis in places:
        array = resized[tensor]
        resized[tensor] = repeated(array, change(array.shape[axis]), axis)
    return resized
