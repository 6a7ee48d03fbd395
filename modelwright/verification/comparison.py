"""Whether two runs over the same samples give the same outputs, within tolerances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelwright.errors import VerifyError
from modelwright.project.spec import Tolerance
from modelwright.triton.arrays import is_float
from modelwright.triton.tensors import Tensors
from modelwright.verification.tolerances import EXACT

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class WorstDifference:
    """The worst value that is outside its tolerance."""

    sample: int
    text: str  # "'logits' differs by 3.1e-02 from the source, allowed 1.0e-02"
    shape: bool = False  # whether the shapes differ


def compare_outputs(
    expected: Sequence[Tensors],
    actual: Sequence[Tensors],
    allowed: Mapping[str, Tolerance],
    source: str = "source",
    hint: str = "raise the tolerance only if an accuracy gate passes; else look at the last step",
) -> dict[str, float]:
    """{output: largest absolute difference} of every expected output.

    Both hold one {output: array} a sample, in the same order. Floats agree where
    |actual - expected| <= atol + rtol * |expected|, in float64; equal infinities agree, NaN never does. All other types
    must be equal, and so must floats without a tolerance. `source` names what is expected, `hint` says what to do about
    another value. Raises VerifyError naming the worst output and sample.
    """
    if len(expected) != len(actual):
        raise VerifyError(f"{len(actual)} answers to {len(expected)} samples")
    largest, worst = differences(expected, actual, allowed, source)
    if worst:
        which = f"(worst of {len(expected)} samples: {worst.sample})"
        raise VerifyError(f"{worst.text} {which}", _SHAPE_HINT if worst.shape and source == "source" else hint)
    return largest


def check_repeatable(
    first: Sequence[Tensors], second: Sequence[Tensors], allowed: Mapping[str, Tolerance]
) -> dict[str, float]:
    """`compare_outputs` of two answers of one model to the same samples. Raises VerifyError, for NaN as well."""
    return compare_outputs(first, second, allowed, "first answer", _REPEAT_HINT)


_SHAPE_HINT = "a reference returns (N, *shape) for N samples, with the shapes of the model's own answers"
_REPEAT_HINT = (
    "the same samples must get the same answers each time: switch dropout off (eval mode), give random numbers a fixed"
    " seed at each call, keep nothing between requests"
)


def differences(
    expected: Sequence[Tensors], actual: Sequence[Tensors], allowed: Mapping[str, Tolerance], source: str
) -> tuple[dict[str, float], WorstDifference | None]:
    """({output: largest absolute difference}, the worst one that is not allowed). `source` names what is expected.

    Raises VerifyError for outputs that are missing, of another type or not finite.
    """
    if missing := sorted(expected[0].keys() - actual[0].keys()):
        raise VerifyError(f"outputs are missing: expected {sorted(expected[0])}, got no {missing}")
    largest: dict[str, float] = {}
    worst: tuple[float, WorstDifference | None] = (0.0, None)
    for name in expected[0]:
        one, other = [sample[name] for sample in expected], [sample[name] for sample in actual]
        if different := _other_shape(name, one, other, source):
            return {}, different
        pair = _pair(name, one, other, source)
        floats = is_float(pair.expected.dtype)
        if floats:
            _check_finite(pair)
        check = _compare_floats if floats else _compare_exactly
        largest[name], excess, found = check(pair, allowed.get(name, EXACT))
        if found and excess > worst[0]:
            worst = excess, found
    return largest, worst[1]


def relative_error(expected: Sequence[Tensors], actual: Sequence[Tensors]) -> float:
    """How far answers are from what is expected, as a share of its size: 0 where they are equal, the worst output
    counts. Of floats the root of the squares, |actual - expected| / |expected|; of other types the share of values that
    differ. Infinite where a value is not finite, or a shape another."""
    import numpy as np

    worst = 0.0
    for name in expected[0]:
        pairs = [(one[name], other[name]) for one, other in zip(expected, actual, strict=True)]
        if any(one.shape != other.shape for one, other in pairs):
            return float("inf")
        one, other = (_flat(list(side)) for side in zip(*pairs, strict=True))
        if not is_float(one.dtype):
            worst = max(worst, float((one != other).mean()) if one.size else 0.0)
            continue
        one, other = one.astype(np.float64), other.astype(np.float64)
        size, distance = np.linalg.norm(one), np.linalg.norm(other - one)
        share = float(distance / size) if size else float(distance)
        worst = max(worst, share) if np.isfinite(share) else float("inf")
    return worst


def nearest(candidates: Sequence[Sequence[Tensors]], actual: Sequence[Tensors]) -> list[Tensors]:
    """For each answer, that of the candidates' which it is nearest to. Each candidate has one for every answer."""
    found = []
    for options, answer in zip(zip(*candidates, strict=True), actual, strict=True):
        found.append(min(options, key=lambda option: relative_error([option], [answer])))
    return found


def worst_samples(expected: Sequence[Tensors], actual: Sequence[Tensors], most: int = 3) -> str:
    """The samples whose float outputs differ most: "17 ('logits' by 3.1e-01), 4 (…)"; "" where there are none."""
    import numpy as np

    found: list[tuple[float, int, str]] = []
    for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
        for name, array in one.items():
            if is_float(array.dtype) and array.size and other[name].shape == array.shape:
                error = np.abs(array.astype(np.float64) - other[name].astype(np.float64))
                found.append((float(np.nan_to_num(error, nan=np.inf).max()), index, name))
    worst = sorted(found, key=lambda item: -item[0])[:most]
    return ", ".join(f"{index} ('{name}' by {error:.1e})" for error, index, name in worst)


@dataclass(frozen=True)
class _Pair:
    """One output of all samples: values end to end, whatever the sizes of the samples are."""

    name: str
    expected: Array
    actual: Array
    ends: Array  # of each sample, among the values
    source: str

    def sample(self, value: int) -> int:
        """Which sample a value is of."""
        import numpy as np

        return int(np.searchsorted(self.ends, value, side="right"))

    def first(self, bad: Array) -> int:
        return self.sample(int(bad.nonzero()[0][0]))


def _other_shape(name: str, expected: Sequence[Array], actual: Sequence[Array], source: str) -> WorstDifference | None:
    for index, (one, other) in enumerate(zip(expected, actual, strict=True)):
        if one.shape != other.shape:
            text = f"'{name}' has shape {list(other.shape)}, its {source} {list(one.shape)}"
            return WorstDifference(index, text, shape=True)
    return None


def _pair(name: str, expected: Sequence[Array], actual: Sequence[Array], source: str) -> _Pair:
    import numpy as np

    first, second = expected[0].dtype, actual[0].dtype
    if first.kind != second.kind or is_float(first) != is_float(second):
        raise VerifyError(f"'{name}' is {second}, its {source} {first}")
    ends = np.cumsum([array.size for array in expected])
    return _Pair(name, _flat(expected), _flat(actual), ends, source)


def _flat(arrays: Sequence[Array]) -> Array:
    import numpy as np

    return np.concatenate([array.ravel() for array in arrays])


def _check_finite(pair: _Pair) -> None:
    import numpy as np

    name, expected, actual = pair.name, pair.expected, pair.actual
    for who, array in ((f"the {pair.source}'s", expected), ("its", actual)):
        if (bad := np.isnan(array)).any():
            raise VerifyError(
                f"'{name}': {bad.sum()} of {who} {bad.size} values are NaN (first in sample {pair.first(bad)})",
                "the samples may be outside the model's range; for FP16, keep overflowing nodes in FP32",
            )
    bad = (np.isinf(expected) | np.isinf(actual)) & (expected != actual)
    if bad.any():
        raise VerifyError(
            f"'{name}': {bad.sum()} of {bad.size} values are infinite in one of {pair.source} and result"
            f" (first in sample {pair.first(bad)})",
            "for FP16, keep overflowing nodes in FP32",
        )


def _compare_floats(pair: _Pair, allowed: Tolerance) -> tuple[float, float, WorstDifference | None]:
    """(largest difference, how many times what is allowed, the worst that is not allowed)."""
    import numpy as np

    if not pair.expected.size:
        return 0.0, 0.0, None
    source, result = pair.expected.astype(np.float64), pair.actual.astype(np.float64)
    # Infinities are equal here; inf - inf would be NaN.
    difference = np.abs(np.subtract(result, source, where=np.isfinite(source), out=np.zeros_like(source)))
    limit = allowed.atol + allowed.rtol * np.where(np.isfinite(source), np.abs(source), 0.0)
    over = difference - limit
    if (over <= 0).all():
        return float(difference.max()), 0.0, None
    at = int(over.argmax())
    excess = float(difference[at] / limit[at]) if limit[at] else float("inf")
    text = f"'{pair.name}' differs by {difference[at]:.1e} from the {pair.source}, allowed {limit[at]:.1e}"
    return float(difference.max()), excess, WorstDifference(pair.sample(at), text)


def _compare_exactly(pair: _Pair, _: Tolerance) -> tuple[float, float, WorstDifference | None]:
    expected, actual = pair.expected, pair.actual
    bad = expected != actual
    if not bad.any():
        return 0.0, 0.0, None
    # Python integers: unsigned and 64-bit subtraction would wrap.
    largest = (
        float(max(abs(int(a) - int(b)) for a, b in zip(expected[bad], actual[bad], strict=True)))
        if expected.dtype.kind in "biu"
        else 1.0
    )
    text = f"'{pair.name}' differs in {bad.sum()} of {bad.size} {expected.dtype} values from the {pair.source}"
    return largest, float("inf"), WorstDifference(pair.first(bad), text)
