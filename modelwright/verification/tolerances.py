"""How far an answer may differ from the expected one, per output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelwright.project.spec import Gates, Tolerance
from modelwright.triton.arrays import is_float
from modelwright.triton.tensors import Tensors

EXACT = Tolerance(atol=0.0, rtol=0.0)
UNBOUNDED = Tolerance(atol=1e308)  # of floats that are reported and held to nothing; infinity is no JSON
# How far two runs of one model may differ, by the precision of the output: a few hundred units in the last place of a
# value near one, which is what another order of summation costs. Integers, booleans and strings must be equal.
_BY_DTYPE = {
    "float64": Tolerance(atol=1e-9, rtol=1e-9),
    "float32": Tolerance(atol=1e-4, rtol=1e-4),
    "float16": Tolerance(atol=1e-2, rtol=1e-2),
    "bfloat16": Tolerance(atol=5e-2, rtol=5e-2),
}
# The same where the model computes in less than its outputs show: a share of the output's largest value, because the
# error of a sum follows its terms and not its result. INT8: a step of 1/127 of the range, through a few layers.
_BY_PRECISION = {"fp16": 1e-2, "bf16": 5e-2, "int8": 1e-1}


def tolerances(gates: Gates, answer: Tensors) -> dict[str, Tolerance]:
    """Per output of an answer: `gates.tolerance` for floats where it is set, else by its precision."""
    wanted = gates.tolerance
    return {
        name: wanted if wanted and is_float(array.dtype) else _BY_DTYPE.get(str(array.dtype), EXACT)
        for name, array in answer.items()
    }


def tolerances_in(precision: str, gates: Gates, answers: Sequence[Tensors]) -> dict[str, Tolerance]:
    """The same for a model that computes in `precision`: fp32, fp16, bf16, int8."""
    found = tolerances(gates, answers[0])
    share = _BY_PRECISION.get(precision)
    if gates.tolerance or share is None:
        return found
    for name, array in answers[0].items():
        if is_float(array.dtype):
            largest = max(_largest(answer[name]) for answer in answers)
            atol = float(f"{max(share * largest, found[name].atol):.3g}")  # a manifest holds it: a number to read
            found[name] = Tolerance(atol=atol, rtol=found[name].rtol)
    return found


def _largest(array: Any) -> float:
    import numpy as np

    values = array.astype(np.float64)
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
