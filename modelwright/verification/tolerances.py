"""How far an answer may differ from the expected one, per output."""

from __future__ import annotations

from modelwright.project.spec import Gates, Tolerance
from modelwright.triton.arrays import is_float
from modelwright.triton.tensors import Tensors

EXACT = Tolerance(atol=0.0, rtol=0.0)
# How far two runs of one model may differ, by the precision of the output: a few hundred units in the last place of a
# value near one, which is what another order of summation costs. Integers, booleans and strings must be equal.
_BY_DTYPE = {
    "float64": Tolerance(atol=1e-9, rtol=1e-9),
    "float32": Tolerance(atol=1e-4, rtol=1e-4),
    "float16": Tolerance(atol=1e-2, rtol=1e-2),
    "bfloat16": Tolerance(atol=5e-2, rtol=5e-2),
}


def tolerances(gates: Gates, answer: Tensors) -> dict[str, Tolerance]:
    """Per output of an answer: `gates.tolerance` for floats where it is set, else by its precision."""
    wanted = gates.tolerance
    return {
        name: wanted if wanted and is_float(array.dtype) else _BY_DTYPE.get(str(array.dtype), EXACT)
        for name, array in answer.items()
    }
