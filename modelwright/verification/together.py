"""Whether requests that the server runs together are answered as each is alone, and whether a bad one harms the others.

With dynamic batching `execute` of a Python model gets the requests of several clients at once. What happens then can
only be seen when it happens: requests are sent at the same time until the server's statistics show an execution of
several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from modelwright.errors import ModelwrightError, VerifyError
from modelwright.project.spec import Tolerance
from modelwright.triton.arrays import is_float
from modelwright.triton.reasons import fails_its_batch
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import differences
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import shapes

if TYPE_CHECKING:
    import numpy as np

REQUESTS = 8  # at the same time
# Each is sent twice: in an ensemble, what composing models get is of equal sizes for equal requests alone.
_DISTINCT = 4
# Some of eight requests meet in the queue of the first rounds; after so many, all pairs have most likely met.
_ROUNDS, _ENOUGH_SAVED = 40, 12
_NOT_UTF8 = b"\xff\xfe"

_EACH_HINT = (
    "with serving.dynamic_batching, execute() gets the requests of several clients at once: return one response for"
    " each, in their order"
)
_BAD_HINT = (
    "catch what one request raises, and give that request alone"
    " InferenceResponse(output_tensors=[], error=TritonError(…))"
)


def check_requests_together(
    runner: SampleRunner,
    samples: Sequence[Tensors],
    allowed: Mapping[str, Tolerance],
    runs_saved: Callable[[], int],
    *,
    ragged: bool = False,
) -> bool:
    """Send requests at the same time, and then again with bad ones among them. False if none ever ran together.

    `runs_saved` counts, since the server's start, requests less executions: it grows when several requests ran as one.
    With `ragged` (allow_ragged_batch), requests of different sizes do.
    Raises VerifyError for a request whose answer is not the one that it gets alone.
    """
    alike = _of_equal_sizes(samples, ragged)
    chosen = _repeated(alike)
    alone = _repeated([answer for sample in alike for answer in runner.ask([sample])])
    if not _until_together(runner, chosen, alone, allowed, runs_saved, _EACH_HINT):
        return False
    bad = {name: _bad(array) for name, array in chosen[0].items()}
    # Every second one is bad, so that whatever runs together holds one.
    mixed = [bad if index % 2 else sample for index, sample in enumerate(chosen)]
    expected = [None if index % 2 else answer for index, answer in enumerate(alone)]
    return _until_together(runner, mixed, expected, allowed, runs_saved, _BAD_HINT, " beside a bad request")


def _of_equal_sizes(samples: Sequence[Tensors], ragged: bool) -> list[Tensors]:
    """The samples that are sent: only those of equal sizes run together, unless they may be ragged."""
    return [sample for sample in samples if ragged or shapes(sample) == shapes(samples[0])][:_DISTINCT]


def _repeated(items: Sequence[Tensors]) -> list[Tensors]:
    """As many as are sent at once."""
    return [items[index % len(items)] for index in range(REQUESTS)]


def _until_together(
    runner: SampleRunner,
    samples: Sequence[Tensors],
    expected: Sequence[Tensors | None],
    allowed: Mapping[str, Tolerance],
    runs_saved: Callable[[], int],
    hint: str,
    beside: str = "",
) -> bool:
    """Send rounds of requests until enough ran together; False if none did. None in `expected`: any answer will do."""
    before = runs_saved()
    with ThreadPoolExecutor(len(samples)) as pool:
        for _ in range(_ROUNDS):
            answers = list(pool.map(lambda sample: _answer(runner, sample), samples))
            for index, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
                if wanted is not None and not (beside and _fails_its_batch(answer)):
                    where = f"request {index} of {len(samples)} at the same time{beside}"
                    _check_answer(answer, wanted, allowed, where, hint)
            if runs_saved() - before >= _ENOUGH_SAVED:
                break
    return runs_saved() > before


def _fails_its_batch(answer: Tensors | ModelwrightError) -> bool:
    """Whether a bad request's neighbour failed with it in onnxruntime: the server's own way, no fault of a model."""
    return isinstance(answer, ModelwrightError) and fails_its_batch(answer.message)


def _answer(runner: SampleRunner, sample: Tensors) -> Tensors | ModelwrightError:
    try:
        return runner.ask([sample])[0]
    except ModelwrightError as error:
        return error


def _check_answer(
    answer: Tensors | ModelwrightError, expected: Tensors, allowed: Mapping[str, Tolerance], where: str, hint: str
) -> None:
    if isinstance(answer, ModelwrightError):
        raise VerifyError(f"{where} gets no answer: {answer.message}", hint)
    _, worst = differences([expected], [answer], allowed, "answer alone")
    if worst:
        raise VerifyError(f"{where}: {worst.text}", hint)


def _bad(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a model cannot use, and what costs it nothing: no text, not a number, a negative index or count."""
    import numpy as np

    values: dict[str, Any] = {"O": _NOT_UTF8, "f": np.nan, "i": -1}
    kind = "f" if is_float(array.dtype) else array.dtype.kind
    return np.full_like(array, values[kind]) if kind in values else array
