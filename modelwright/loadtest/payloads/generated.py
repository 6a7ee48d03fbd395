"""Payloads generated from a model's metadata: valid by type and shape only."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelwright.errors import LoadError
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface
from modelwright.loadtest.payloads.ranges import has_range, range_for
from modelwright.loadtest.payloads.samples import check_size, dtype_of, matches
from modelwright.triton.arrays import is_float
from modelwright.triton.tensors import Tensors

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Making:
    """How values are generated. Numbers are in `ranges`, else in `golden`, by input, both ends included.

    `dims`, per input: its whole shape, or a value for each of its variable sizes. An optional input is left out unless
    it is named there, or in `ranges`.
    """

    dims: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    golden: Mapping[str, Sequence[float]] = field(default_factory=dict)
    string_length: int = 16
    zero: bool = False  # zeros, and empty strings

    def all_ranges(self) -> dict[str, Sequence[float]]:
        return {**self.golden, **self.ranges}


def generate(interface: ModelInterface, making: Making, *, batch: int, distinct: int, seed: int) -> list[Tensors]:
    """`distinct` requests of `batch` rows (no batch dimension where the model has none); one, for zeros.

    Raises LoadError for a variable size without a value, and for values that do not fit the model.
    """
    import numpy as np

    where = f"payload for {interface.model}"
    inputs = _wanted(interface, making, where)
    rows = (batch,) if interface.max_batch_size else ()
    shapes = {tensor.name: rows + _shape(tensor, making, where) for tensor in inputs}
    count = 1 if making.zero else distinct
    check_size(count * sum(_size(tensor, shapes[tensor.name], making) for tensor in inputs), where)
    chance = np.random.default_rng(seed)
    return [{t.name: _values(t, shapes[t.name], making, chance) for t in inputs} for _ in range(count)]


def _wanted(interface: ModelInterface, making: Making, where: str) -> list[InterfaceTensor]:
    named = [
        tensor for tensor in interface.inputs if not tensor.optional or tensor.name in {*making.dims, *making.ranges}
    ]
    wanted = named or list(interface.inputs)
    for tensor in wanted:
        if has_range(tensor) or tensor.name in making.ranges:
            range_for(tensor, making.all_ranges(), f"{where}: input '{tensor.name}'")
    return wanted


def _shape(tensor: InterfaceTensor, making: Making, where: str) -> tuple[int, ...]:
    """The shape without the batch dimension, every size known."""
    where = f"{where}: input '{tensor.name}'"
    given = making.dims.get(tensor.name)
    free = tensor.dims.count(-1)
    if given is None:
        if free:
            example = ",".join("128" if dim == -1 else str(dim) for dim in tensor.dims)
            hint = f"give them: --shape {tensor.name}:{example}"
            raise LoadError(f"{where} has variable sizes, {list(tensor.dims)}, without a value", hint)
        return tensor.dims
    sizes = [given] if isinstance(given, int) else list(given)
    values = iter(sizes)
    if len(sizes) == free != len(tensor.dims):
        sizes = [next(values) if dim == -1 else dim for dim in tensor.dims]
    if not matches(tensor.dims, sizes) or min(sizes, default=0) < 0:
        shown = ",".join(map(str, [given] if isinstance(given, int) else given))
        hint = "give the shape without the batch dimension, or one value for each -1"
        raise LoadError(f"{where}: --shape {tensor.name}:{shown} does not fit {list(tensor.dims)}", hint)
    return tuple(sizes)


def _size(tensor: InterfaceTensor, shape: tuple[int, ...], making: Making) -> int:
    dtype = dtype_of(tensor, tensor.name)
    return math.prod(shape) * (4 + making.string_length if dtype.kind == "O" else dtype.itemsize)


def _values(
    tensor: InterfaceTensor, shape: tuple[int, ...], making: Making, chance: np.random.Generator
) -> np.ndarray[Any, Any]:
    import numpy as np

    dtype = dtype_of(tensor, tensor.name)
    if dtype.kind == "O":
        return _strings(shape, 0 if making.zero else making.string_length, chance)
    if making.zero:
        return np.zeros(shape, dtype)
    if dtype.kind == "b":
        return chance.integers(0, 2, shape).astype(dtype)
    low, high = range_for(tensor, making.all_ranges(), tensor.name)
    if is_float(dtype):
        part = chance.random(shape)
        return (low * (1 - part) + high * part).astype(dtype)  # high - low may be infinite
    return chance.integers(int(low), int(high), shape, dtype, endpoint=True)


def _strings(shape: tuple[int, ...], length: int, chance: np.random.Generator) -> np.ndarray[Any, Any]:
    import numpy as np

    letters = np.frombuffer(string.ascii_lowercase.encode(), np.uint8)
    drawn = letters[chance.integers(0, len(letters), (math.prod(shape), length))]
    made = np.empty(math.prod(shape), dtype=object)
    made[:] = [row.tobytes() for row in drawn]
    return made.reshape(shape)
