"""golden.npz of a version: inputs with the outputs it must give, so that any server can be checked against it.

It holds input/<name> and output/<name>, arrays of (N, *shape). The manifest says how to ask and compare:
`golden: {batch, tolerance: {output: {atol, rtol}}}`.
"""

from __future__ import annotations

from pathlib import Path

from modelwright.triton.tensors import Tensors, load_tensors, save_tensors

_MOST = 64  # samples kept in a version: enough to check one, small enough to copy with it


def save_golden(path: Path, inputs: Tensors, outputs: Tensors, batch: int) -> None:
    """Keep the first samples: whole requests of `batch` rows, since a model may pad the rows of a request alike."""
    kept = _MOST - _MOST % batch if 0 < batch <= _MOST else _MOST
    tensors = {f"input/{name}": array[:kept] for name, array in inputs.items()}
    tensors |= {f"output/{name}": array[:kept] for name, array in outputs.items()}
    save_tensors(path, tensors)


def load_golden(path: Path) -> tuple[Tensors, Tensors]:
    """(inputs, outputs)."""
    tensors = load_tensors(path)
    inputs = {name.removeprefix("input/"): array for name, array in tensors.items() if name.startswith("input/")}
    outputs = {name.removeprefix("output/"): array for name, array in tensors.items() if name.startswith("output/")}
    return inputs, outputs
