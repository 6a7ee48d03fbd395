"""Samples and answers one by one, the requests that they are sent in, and how they lie in a file.

A sample is {tensor: array of the declared shape}, without a batch dimension; so is the answer to it. Two samples may
differ in size, where a dimension is dynamic, and so may two answers, of a detector for instance.

On the wire a batched model has a first dimension more, and a scalar is a tensor of shape [1]: Triton has no others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from modelwright.errors import VerifyError
from modelwright.triton.tensors import Tensors

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Column = Union["Array", "list[Array]"]  # one tensor of all samples: (N, *shape), or a list where sizes differ

_VALUES, _SHAPES = "#values", "#shapes"  # of a tensor whose samples differ in size: (values,) and (N, rank)


def columns(samples: Sequence[Tensors]) -> dict[str, Column]:
    """{tensor: (N, *shape)}, or a list of N arrays where their sizes differ: what a builder's functions are given."""
    import numpy as np

    found: dict[str, Column] = {}
    for name in samples[0] if samples else ():
        arrays = [sample[name] for sample in samples]
        found[name] = np.stack(arrays) if _alike(arrays) else arrays
    return found


def stacked(samples: Sequence[Tensors]) -> Tensors:
    """{tensor: (N, *shape)} of samples that are of equal sizes."""
    import numpy as np

    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def unstacked(tensors: Mapping[str, Column]) -> list[Tensors]:
    """The samples of `columns`: as many as the shortest has."""
    count = min(map(len, tensors.values()), default=0)
    # A single string of an object array is bytes, not an array.
    return [{name: _element(column, index) for name, column in tensors.items()} for index in range(count)]


def pack(samples: Sequence[Tensors]) -> Tensors:
    """Samples as plain arrays, for a file. Where sizes are equal a tensor stays one array (N, *shape)."""
    import numpy as np

    packed: Tensors = {}
    for name, column in columns(samples).items():
        if isinstance(column, list):
            packed[name + _VALUES] = np.concatenate([array.ravel() for array in column])
            packed[name + _SHAPES] = np.array([array.shape for array in column], np.int64)
        else:
            packed[name] = column
    return packed


def unpack(tensors: Tensors) -> list[Tensors]:
    """What `pack` was given."""
    return unstacked(unpacked_columns(tensors))


def unpacked_columns(tensors: Tensors) -> dict[str, Column]:
    """The tensors of all samples, each under its own name."""
    import numpy as np

    found: dict[str, Column] = {}
    for name, array in tensors.items():
        if name.endswith(_SHAPES):
            plain = name.removesuffix(_SHAPES)
            sizes = [int(np.prod(shape)) for shape in array]
            parts = np.split(tensors[plain + _VALUES], np.cumsum(sizes)[:-1])
            found[plain] = [part.reshape(shape) for part, shape in zip(parts, array, strict=True)]
        elif not name.endswith(_VALUES) or name.removesuffix(_VALUES) + _SHAPES not in tensors:
            found[name] = array
    return found


def requests(samples: Sequence[Tensors], batch: int) -> Iterator[Sequence[Tensors]]:
    """Neighbouring samples that fit into one request: of equal sizes, at most `batch`. One by one if 0."""
    start = 0
    for end in range(1, len(samples) + 1):
        is_full = end - start >= max(batch, 1)
        if end == len(samples) or is_full or shapes(samples[end]) != shapes(samples[start]):
            yield samples[start:end]
            start = end


def request_of(samples: Sequence[Tensors], *, batched: bool) -> Tensors:
    """The tensors of one request, as the server takes them. Without a batch dimension `samples` is one sample."""
    arrays = stacked(samples) if batched else samples[0]
    return {name: array[..., None] if array.ndim == batched else array for name, array in arrays.items()}


def answers_of(response: Tensors, count: int, scalars: Collection[str], *, batched: bool) -> list[Tensors]:
    """The answer to each of the `count` samples of a request. `scalars` are the outputs of declared rank 0.

    One of them that has more than a value stays as it is: a file can declare less than its model answers. Raises
    VerifyError for an output that does not have one row a sample.
    """
    if not batched:
        return [{name: _scalars(array, ()) if name in scalars else array for name, array in response.items()}]
    for name, array in response.items():
        if array.ndim < 1 or len(array) != count:
            found = f"{len(array)} rows" if array.ndim else "no batch dimension"
            raise VerifyError(f"'{name}' has {found} for a request of {count}", ROWS_HINT)
    plain = {name: _scalars(array, (count,)) if name in scalars else array for name, array in response.items()}
    return unstacked(plain)


def _scalars(array: Array, shape: tuple[int, ...]) -> Array:
    return array.reshape(shape) if array.size == (shape[0] if shape else 1) else array


ROWS_HINT = (
    "a server splits a batch by rows: each output needs one row for each row of its request; or set"
    " serving.max_batch_size: 0, after which inputs, outputs and samples carry the batch dimension themselves"
)


def scalars_of(answers: Sequence[Tensors]) -> set[str]:
    """The tensors of rank 0."""
    return {name for name, array in answers[0].items() if array.ndim == 0}


def of_equal_sizes(samples: Sequence[Tensors]) -> list[list[int]]:
    """The numbers of the samples, in groups that fit into one request."""
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(repr(shapes(sample)), []).append(index)
    return list(groups.values())


def shapes(sample: Tensors) -> dict[str, tuple[int, ...]]:
    """{tensor: shape}."""
    return {name: array.shape for name, array in sample.items()}


def _alike(arrays: Sequence[Array]) -> bool:
    return all(array.shape == arrays[0].shape for array in arrays)


def _element(column: Column, index: int) -> Array:
    import numpy as np

    item = column[index]
    if isinstance(item, np.ndarray):
        return item
    single: Array = np.empty((), dtype=getattr(column, "dtype", object))
    single[()] = item
    return single
