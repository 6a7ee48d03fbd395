"""Running ONNX files in onnxruntime, and comparing what two runs gave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError, VerifyError, one_line

if TYPE_CHECKING:
    import numpy as np
    from onnxruntime import InferenceSession

    from modelwright.triton.tensors import Tensors


def session(path: Path, threads: int = 1) -> InferenceSession:
    """Load a file in onnxruntime on the CPU, external weights included. Raises StepError with its message in a line."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings are onnxruntime's advice to itself; errors arrive as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _onnxruntime_errors() as error:
        reason = one_line(error).replace(f"{path.parent}/", "")
        raise StepError(f"{path.name}: onnxruntime does not load it: {reason}", _load_hint(reason)) from error


def run(path: Path, inputs: Tensors, *, threads: int = 1) -> Tensors:
    """Run a file once on a whole batch; strings go in and come out as object arrays of bytes."""
    return run_session(session(path, threads), inputs)


def run_session(loaded: InferenceSession, inputs: Tensors) -> Tensors:
    """`run`, for a model that is already loaded. Raises StepError when onnxruntime refuses the inputs or fails."""
    names = [output.name for output in loaded.get_outputs()]
    feed = {name: _encoded(array, bytes.decode) for name, array in inputs.items()}
    try:
        outputs = loaded.run(names, feed)
    except (ValueError, *_onnxruntime_errors()) as error:  # type: ignore[misc]
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise StepError(f"onnxruntime fails on inputs {shapes}: {one_line(error)}") from error
    return {name: _encoded(array, str.encode) for name, array in zip(names, outputs, strict=True)}


def _encoded(array: np.ndarray[Any, Any], convert: Any) -> np.ndarray[Any, Any]:
    """onnxruntime's Python strings are str, ours are bytes; it would turn bytes into their repr."""
    import numpy as np

    if array.dtype != object:
        return array
    wanted = bytes if convert is bytes.decode else str
    flat = [convert(item) if isinstance(item, wanted) else item for item in array.ravel()]
    result = np.empty(len(flat), dtype=object)
    result[:] = flat
    return result.reshape(array.shape)


def compare(expected: Tensors, actual: Tensors, *, atol: float, rtol: float) -> dict[str, float]:
    """Check that two runs over the same samples agree; the largest absolute difference of each output.

    Arrays are (samples, *shape). Floats agree where |actual - expected| <= atol + rtol * |expected|, in float64; equal
    infinities agree, NaN never does. All other types must be equal. Raises VerifyError naming the worst output and
    sample.
    """
    if missing := sorted(expected.keys() ^ actual.keys()):
        raise VerifyError(f"outputs differ: {missing} in only one of source and result")
    differences: dict[str, float] = {}
    worst: tuple[float, str] = (0.0, "")
    for name in expected:
        _check_like(name, expected[name], actual[name])
        check = _compare_floats if expected[name].dtype.kind == "f" else _compare_exactly
        differences[name], excess, message = check(name, expected[name], actual[name], atol, rtol)
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
    name: str, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], atol: float, rtol: float
) -> tuple[float, float, str]:
    """(largest difference, how many times over what is allowed, message or "")."""
    import numpy as np

    if not expected.size:
        return 0.0, 0.0, ""
    source, result = expected.astype(np.float64), actual.astype(np.float64)
    # Infinities are equal here; inf - inf would be NaN.
    difference = np.abs(np.subtract(result, source, where=np.isfinite(source), out=np.zeros_like(source)))
    allowed = atol + rtol * np.where(np.isfinite(source), np.abs(source), 0.0)
    over = difference - allowed
    if (over <= 0).all():
        return float(difference.max()), 0.0, ""
    at = np.unravel_index(int(over.argmax()), over.shape)
    excess = float(difference[at] / allowed[at]) if allowed[at] else float("inf")
    message = (
        f"'{name}' differs by {difference[at]:.1e} from the source, allowed {allowed[at]:.1e}"
        f" (worst of {_samples(over)} samples: {at[0] if at else 0})"
    )
    return float(difference.max()), excess, message


def _compare_exactly(
    name: str, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], _atol: float, _rtol: float
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


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Its exceptions share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (getattr(state, name) for name in dir(state))
    return tuple(item for item in found if isinstance(item, type) and issubclass(item, Exception))


def _load_hint(reason: str) -> str:
    if "IR version" in reason or "opset" in reason.lower():
        return "export again with a lower opset; `onnxruntime` here must match the target release"
    if "Duplicate definition" in reason:
        return "two tensors share a name: rename the input or output that carries it"
    if "external" in reason.lower():
        return "keep the weights' file beside the model, as a plain file"
    return "export it again; if it came from elsewhere, check it with onnx.checker.check_model"
