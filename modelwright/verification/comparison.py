"""Whether two runs over the same samples give the same outputs, within tolerances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelwright.errors import VerifyError
from modelwright.project.spec import Tolerance
from modelwright.triton.tensors import Tensors
from modelwright.verification.tolerances import EXACT

if TYPE_CHECKING:
    import numpy as np


def compare_outputs(expected: Tensors, actual: Tensors, allowed: Mapping[str, Tolerance]) -> dict[str, float]:
    """{output: largest absolute difference} of every expected output.

    Arrays are (samples, *shape). Floats agree where |actual - expected| <= atol + rtol * |expected|, in float64; equal
    infinities agree, NaN never does. All other types must be equal, and so must floats without a tolerance. Raises
    VerifyError naming the worst output and sample.
    """
    if missing := sorted(expected.keys() - actual.keys()):
        raise VerifyError(f"outputs are missing: expected {sorted(expected)}, got no {missing}")
    differences: dict[str, float] = {}
    worst: tuple[float, str] = (0.0, "")
    for name in expected:
        _check_like(name, expected[name], actual[name])
        check = _compare_floats if expected[name].dtype.kind == "f" else _compare_exactly
        differences[name], excess, message = check(name, expected[name], actual[name], allowed.get(name, EXACT))
        worst = max(worst, (excess, message))
    if worst[1]:
        raise VerifyError(worst[1], "raise the tolerance only if an accuracy gate passes; else look at the last step")
    return differences


def _check_like(name: str, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> None:
    if expected.shape != actual.shape:
        raise VerifyError(f"'{name}' has shape {list(actual.shape)}, its source {list(expected.shape)}")
    if expected.dtype.kind != actual.dtype.kind:
        raise VerifyError(f"'{name}' is {actual.dtype}, its source {expected.dtype}")
    if expected.dtype.kind == "f":
        _check_finite(name, expected, actual)


def _check_finite(name: str, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any]) -> None:
    import numpy as np

    for who, array in (("the source's", expected), ("its", actual)):
        if (bad := np.isnan(array)).any():
            raise VerifyError(
                f"'{name}': {bad.sum()} of {who} {bad.size} values are NaN (first in sample {_sample(bad)})",
                "the samples may be outside the model's range; for FP16, keep overflowing nodes in FP32",
            )
    bad = (np.isinf(expected) | np.isinf(actual)) & (expected != actual)
    if bad.any():
        raise VerifyError(
            f"'{name}': {bad.sum()} of {bad.size} values are infinite in one of source and result"
            f" (first in sample {_sample(bad)})",
            "for FP16, keep overflowing nodes in FP32",
        )


def _compare_floats(
    name: str, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], allowed: Tolerance
) -> tuple[float, float, str]:
    """(largest difference, how many times what is allowed, message or "")."""
    import numpy as np

    if not expected.size:
        return 0.0, 0.0, ""
    source, result = expected.astype(np.float64), actual.astype(np.float64)
    # Infinities are equal here; inf - inf would be NaN.
    difference = np.abs(np.subtract(result, source, where=np.isfinite(source), out=np.zeros_like(source)))
    limit = allowed.atol + allowed.rtol * np.where(np.isfinite(source), np.abs(source), 0.0)
    over = difference - limit
    if (over <= 0).all():
        return float(difference.max()), 0.0, ""
    at = np.unravel_index(int(over.argmax()), over.shape)
    excess = float(difference[at] / limit[at]) if limit[at] else float("inf")
    message = (
        f"'{name}' differs by {difference[at]:.1e} from the source, allowed {limit[at]:.1e}"
        f" (worst of {_samples(over)} samples: {at[0] if at else 0})"
    )
    return float(difference.max()), excess, message


def _compare_exactly(
    name: str, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], _: Tolerance
) -> tuple[float, float, str]:
    import numpy as np

    bad = np.asarray(expected != actual)
    if not bad.any():
        return 0.0, 0.0, ""
    numeric = expected.dtype.kind in "biu"
    # Python integers: unsigned and 64-bit subtraction would wrap.
    largest = (
        float(max(abs(int(a) - int(b)) for a, b in zip(expected[bad], actual[bad], strict=True))) if numeric else 1.0
    )
    message = f"'{name}' differs in {bad.sum()} of {bad.size} {expected.dtype} values (first in sample {_sample(bad)})"
    return largest, float("inf"), message


def _sample(bad: np.ndarray[Any, Any]) -> int:
    return int(bad.nonzero()[0][0]) if bad.ndim else 0


def _samples(array: np.ndarray[Any, Any]) -> int:
    return array.shape[0] if array.ndim else 1
