"""Samples, each one row of a request: checks that they fit a model, and combines them to requests."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from modelwright.errors import LoadError
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface
from modelwright.suggest import did_you_mean
from modelwright.text import size
from modelwright.triton.arrays import datatype_of, numpy_dtype
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.tensor_files import raw
from modelwright.triton.tensors import Tensors

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 1 << 30  # of all payloads, and of their file: they are in memory twice, as arrays and serialised


def check_fits(interface: ModelInterface, sample: Tensors, where: str) -> None:
    """Check one sample, without a batch dimension: names, data types, shapes. Raises LoadError."""
    check_names(interface, sample, where)
    for tensor in interface.inputs:
        if tensor.name in sample:
            _check_tensor(tensor, sample[tensor.name], f"{where}: input '{tensor.name}'")


def check_names(interface: ModelInterface, names: Collection[str], where: str) -> None:
    """Check that these are inputs of the model, and that no required input is missing. Raises LoadError."""
    check_known(interface, names, where)
    missing = [tensor.name for tensor in interface.inputs if tensor.name not in names and not tensor.optional]
    if missing:
        found = f"has {', '.join(sorted(names))}" if names else "has none"
        raise LoadError(f"{where}: input '{missing[0]}' of {interface.model} is missing", f"the sample {found}")


def check_known(interface: ModelInterface, names: Iterable[str], where: str) -> None:
    """Check that these are inputs of the model. Raises LoadError."""
    known = [tensor.name for tensor in interface.inputs]
    for name in names:
        if name not in known:
            raise LoadError(f"{where}: {interface.model} has no input '{name}'", did_you_mean(name, known))


def _check_tensor(tensor: InterfaceTensor, array: np.ndarray[Any, Any], where: str) -> None:
    dtype_of(tensor, where)
    found = datatype_of(array)
    if found != tensor.datatype:
        wanted = BY_NAME[tensor.datatype].numpy
        hint = f"convert it: array.astype('{wanted}')" if wanted != "object" else "strings are bytes or str"
        raise LoadError(f"{where}: the model takes {tensor.datatype}, got {found}", hint)
    if not matches(tensor.dims, array.shape):
        shown, dims = list(array.shape), list(tensor.dims)
        hint = "shapes are those of one sample, without the batch dimension; -1 stands for any size"
        raise LoadError(f"{where}: the model takes {dims}, got {shown}", hint)


def matches(dims: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether `dims` allows this shape; -1 allows any size."""
    return len(dims) == len(shape) and all(dim in (-1, size) for dim, size in zip(dims, shape, strict=True))


def dtype_of(tensor: InterfaceTensor, where: str) -> np.dtype[Any]:
    """numpy's type of a tensor. Raises LoadError for a data type that this version does not know."""
    if tensor.datatype not in BY_NAME:
        raise LoadError(f"{where}: tensors of type {tensor.datatype} cannot be sent", "numpy does not have this type")
    return numpy_dtype(tensor.datatype)


def selections(samples: Sequence[Tensors], batch: int, distinct: int, seed: int) -> list[tuple[int, ...]]:
    """Which samples make up each request: at most `distinct` requests of `batch` rows.

    First all samples in order; then, if a request has several rows, random combinations of them. Rows of one request
    have the same inputs in the same shapes; if too few samples have these, they repeat within a request.
    """
    if batch == 1:
        return [(index,) for index in range(min(distinct, len(samples)))]
    groups: dict[Any, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sorted((name, array.shape) for name, array in sample.items()).__repr__(), []).append(index)
    whole = (
        tuple(group[start : start + batch])
        for group in groups.values()
        for start in range(0, len(group) - batch + 1, batch)
    )
    found: dict[tuple[int, ...], None] = dict.fromkeys(whole)
    chance = random.Random(seed)  # noqa: S311 (nothing secret)
    for _ in range(10 * distinct):  # with few samples there are few combinations
        if len(found) >= distinct:
            break
        group = chance.choices(list(groups.values()), [len(group) for group in groups.values()])[0]
        found[tuple(chance.sample(group, batch) if batch <= len(group) else chance.choices(group, k=batch))] = None
    return list(found)[:distinct]


def stacked(samples: Sequence[Tensors], chosen: Iterable[int], batched: bool) -> Tensors:
    """One request's tensors: rows stacked along a new first axis, or the one sample as it is."""
    import numpy as np

    rows = [samples[index] for index in chosen]
    if not batched:
        return rows[0]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def check_size(size_bytes: int, where: str) -> None:
    """Raises LoadError for payloads that are larger than MAX_BYTES."""
    if size_bytes > MAX_BYTES:
        raise LoadError(
            f"{where}: {size(size_bytes)} of payloads, at most {size(MAX_BYTES)} are allowed",
            "ask for fewer distinct payloads, a smaller batch or smaller shapes",
        )


def digest(tensors: Tensors) -> bytes:
    """Equal for equal tensors, which a response cache cannot tell apart."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tensors[name].shape}\n".encode())
        found.update(raw(tensors[name]))
    return found.digest()


def size_of(tensors: Tensors) -> int:
    """Approximate bytes on the wire."""
    return sum(
        sum(4 + len(item) for item in array.ravel()) if array.dtype == object else array.nbytes
        for array in tensors.values()
    )
