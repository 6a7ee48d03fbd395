"""golden.npz of a version: inputs with the outputs it must give, so that any server can be checked against it.

It holds input/<name> and output/<name>, arrays of (N, *shape); where samples differ in size, their values and their
shapes instead (`samples.pack`). The manifest says how to ask and compare:
`golden: {batch, tolerance: {output: {atol, rtol}}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelwright.triton.arrays import datatype_of
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.tensors import Tensors, damage_named, load_tensors, save_tensors
from modelwright.verification.samples import pack, requests, unpack

MOST = 64  # samples kept in a version: enough to check one, small enough to copy with it


def save_golden(path: Path, inputs: Sequence[Tensors], outputs: Sequence[Tensors], batch: int) -> None:
    """Keep the first samples: whole requests of `batch` rows, since a model may pad the rows of a request alike."""
    kept = kept_count(inputs, batch)
    tensors = {f"input/{name}": array for name, array in pack(inputs[:kept]).items()}
    tensors |= {f"output/{name}": array for name, array in pack(outputs[:kept]).items()}
    save_tensors(path, tensors)


def load_golden(path: Path) -> tuple[list[Tensors], list[Tensors]]:
    """(inputs, outputs), sample by sample. Raises TensorFileError."""
    tensors = load_tensors(path)
    with damage_named(path):
        for name, array in tensors.items():
            if datatype_of(array) not in BY_NAME:
                raise ValueError(f"'{name}' is {array.dtype}, which no tensor is")
        inputs, outputs = part_of(tensors, "input/"), part_of(tensors, "output/")
        if not outputs or (inputs and len(inputs) != len(outputs)):
            raise ValueError(f"it has {len(inputs)} inputs and {len(outputs)} outputs")
        return inputs, outputs


def part_of(tensors: Tensors, prefix: str) -> list[Tensors]:
    """The samples, or the answers, among the arrays of a golden.npz."""
    return unpack({name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)})


def kept_count(inputs: Sequence[Tensors], batch: int) -> int:
    """How many of the first samples a version keeps."""
    count = 0
    for request in requests(inputs, batch):
        if count and count + len(request) > MOST:
            break
        count += len(request)
    return min(count, MOST)
