"""Golden samples: a version's inputs with the outputs it must give, and how to put both to any server.

golden.npz            input/<name> and output/<name>, arrays of (N, *shape)
manifest.json         golden: {batch, tolerance: {output: {atol, rtol}}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modelwright.project.spec import ModelSpec, Tolerance
from modelwright.triton.tensors import Tensors, load_tensors, save_tensors

Infer = Callable[[Tensors], Tensors]

# How far two runs of one model may lie apart, by the precision of the output: a few hundred units in the last place of
# a value near one, which is what another order of summation costs. Integers, booleans and strings must be equal.
_TOLERANCE = {
    "float64": Tolerance(atol=1e-9, rtol=1e-9),
    "float32": Tolerance(atol=1e-4, rtol=1e-4),
    "float16": Tolerance(atol=1e-2, rtol=1e-2),
}
_EXACT = Tolerance(atol=0.0, rtol=0.0)
_MOST = 64  # samples kept in a version: enough to check one, small enough to travel with it


def save_golden(path: Path, inputs: Tensors, outputs: Tensors, batch: int) -> None:
    """Keep the first samples: whole requests of `batch` rows, since a model may pad the rows of a request alike."""
    kept = _MOST - _MOST % batch if 0 < batch <= _MOST else _MOST
    tensors = {f"input/{name}": array[:kept] for name, array in inputs.items()}
    tensors |= {f"output/{name}": array[:kept] for name, array in outputs.items()}
    save_tensors(path, tensors)


def load_golden(path: Path) -> tuple[Tensors, Tensors]:
    tensors = load_tensors(path)
    inputs = {name.removeprefix("input/"): array for name, array in tensors.items() if name.startswith("input/")}
    outputs = {name.removeprefix("output/"): array for name, array in tensors.items() if name.startswith("output/")}
    return inputs, outputs


def default_tolerances(outputs: Tensors) -> dict[str, Tolerance]:
    """Per output, by its precision."""
    return {name: _TOLERANCE.get(str(array.dtype), _EXACT) for name, array in outputs.items()}


def tolerances(spec: ModelSpec, outputs: Tensors) -> dict[str, Tolerance]:
    """Per output: what the gates say, else by its precision."""
    allowed = default_tolerances(outputs)
    wanted = spec.gates.tolerance
    return {name: wanted if wanted and outputs[name].dtype.kind == "f" else allowed[name] for name in allowed}


def compare_outputs(expected: Tensors, actual: Tensors, allowed: Mapping[str, Tolerance]) -> dict[str, float]:
    """{output: largest absolute difference}. Raises VerifyError naming the worst output and sample."""
    from modelwright.onnx.runtime import compare

    errors: dict[str, float] = {}
    for name in expected:
        tolerance = allowed.get(name, _EXACT)
        found = {name: actual[name]} if name in actual else {}
        errors |= compare({name: expected[name]}, found, atol=tolerance.atol, rtol=tolerance.rtol)
    return errors


def in_batches(infer: Infer, inputs: Tensors, batch: int) -> Tensors:
    """Run any number of samples, in requests of at most `batch` rows; if 0, one by one without a batch dimension."""
    import numpy as np

    answers = [infer(part) for part in _parts(inputs, batch)]
    merge = np.concatenate if batch else np.stack
    return {name: merge([answer[name] for answer in answers]) for name in answers[0]}


def _parts(inputs: Tensors, batch: int) -> Iterator[Tensors]:
    count = len(next(iter(inputs.values())))
    for start in range(0, count, batch or 1):
        if batch:
            yield {name: array[start : start + batch] for name, array in inputs.items()}
        else:
            yield {name: array[start] for name, array in inputs.items()}


def as_json(allowed: Mapping[str, Tolerance]) -> dict[str, Any]:
    return {name: tolerance.model_dump() for name, tolerance in allowed.items()}


def from_json(data: Mapping[str, Any]) -> dict[str, Tolerance]:
    return {name: Tolerance.model_validate(value) for name, value in data.items()}
