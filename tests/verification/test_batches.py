"""Models that are functions: what a batch, other requests and other sizes do to their answers is found."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelwright.errors import ServerError, StepError, VerifyError
from modelwright.project.spec import Tolerance
from modelwright.triton.tensors import Tensors
from modelwright.verification.batches import check_rows
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import unstacked
from modelwright.verification.sizes import check_sizes
from modelwright.verification.together import REQUESTS, check_requests_together


def check(model: SampleRunner, samples: list[Tensors], allowed: dict[str, Tolerance], largest: int) -> None:
    check_rows(model, samples, model.ask_all(samples, largest), allowed, largest, largest)


CLOSE = {"y": Tolerance(atol=1e-4)}
SAMPLES = unstacked({"x": np.random.default_rng(0).random((6, 3), dtype=np.float32)})


def runner(function: Callable[[Any], Any], *, batched: bool = True) -> SampleRunner:
    return SampleRunner(lambda inputs: {"y": function(inputs["x"])}, batched)


def padded_mean(x: Any) -> Any:
    """Right in pairs, wrong in threes: a fault that one batch size does not show."""
    return x * 2 + (x.mean() if len(x) == 3 else 0)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(0),
        lambda x: x * x[0],
        lambda x: np.roll(x, 1, axis=0),
        lambda x: np.sort(x, axis=0),
        lambda x: x / np.abs(x).max(),
        padded_mean,
        lambda x: np.cumsum(x, axis=0),
        lambda x: x[::-1],
    ],
    ids=["mean", "first-row", "shifted", "sorted", "scaled-by-the-batch", "one-size-only", "sum-so-far", "reversed"],
)
@pytest.mark.parametrize("count", [6, 2, 1])
def test_a_row_that_depends_on_its_neighbours_is_found(function: Callable[[Any], Any], count: int) -> None:
    with pytest.raises(VerifyError, match=r"as row \d of a batch of \d, beside .*: 'y' differs by .* from the answer"):
        check(runner(function), SAMPLES[:count], CLOSE, 8)


def test_the_message_names_the_row_and_its_neighbours() -> None:
    def second_row_wrong(x: Any) -> Any:
        return x + (np.arange(len(x)) == 1)[:, None]

    with pytest.raises(VerifyError) as caught:
        check(runner(second_row_wrong), SAMPLES[:3], CLOSE, 8)
    assert (
        caught.value.message
        == (
            "sample 1 as row 1 of a batch of 2, beside sample 2: 'y' differs by 1.0e+00 from the answer alone,"
            " allowed 1.0e-04"
        )
        or "as row 1 of a batch of 3" in caught.value.message
    )
    assert "max_batch_size: 0" in caught.value.hint


def test_rows_within_the_tolerance_pass() -> None:
    """Dynamic quantisation: the range of activations is that of all rows together."""
    quantised = runner(lambda x: np.round(x / np.abs(x).max() * 127) * np.abs(x).max() / 127)
    with pytest.raises(VerifyError):
        check(quantised, SAMPLES, CLOSE, 8)
    check(quantised, SAMPLES, {"y": Tolerance(atol=0.1)}, 8)


@pytest.mark.parametrize("largest", [1, 2, 3, 8])
def test_no_batch_is_larger_than_the_server_makes_them(largest: int) -> None:
    seen: set[int] = set()

    def relu(x: Any) -> Any:
        seen.add(len(x))
        return np.maximum(x, 0)

    check(runner(relu), SAMPLES, CLOSE, largest)
    assert seen == {size for size in (1, 2, 3, 6) if size <= largest}


@pytest.mark.parametrize("value", [0, 3])
@pytest.mark.parametrize("count", [1, 4])
def test_equal_samples_are_asked_beside_another_one(value: int, count: int) -> None:
    samples = unstacked({"x": np.full((count, 3), value, np.float32)})
    with pytest.raises(VerifyError, match="row 1 of a batch of 2, beside another one: 'y' differs"):
        check(runner(lambda x: x - x.max(axis=0)), samples, CLOSE, 8)


def test_rows_that_are_padded_to_the_longest_of_their_request() -> None:
    """As tokenisers do: the length of an answer depends on the neighbours. Its values must not."""

    def answer(x: Any, extra: float = 0) -> Any:
        return np.tile(x[:, :1] + extra, (1, int(x.max() * 10) + 1))

    model = runner(answer)
    answers = model.ask_all(SAMPLES, 8)
    with pytest.raises(VerifyError, match="has shape"):
        check_rows(model, SAMPLES, answers, CLOSE, 8, 8)
    check_rows(model, SAMPLES, answers, CLOSE, 8, 8, may_pad=True)
    changed = runner(lambda x: answer(x, len(x)))
    with pytest.raises(VerifyError, match="'y' differs by"):
        check_rows(changed, SAMPLES, changed.ask_all(SAMPLES, 8), CLOSE, 8, 8, may_pad=True)


def test_rows_of_different_sizes_are_batched_with_their_like() -> None:
    samples: list[Tensors] = [{"x": np.full((size, 2), size, np.float32)} for size in (3, 4, 3, 5)]
    check(runner(lambda x: x.sum(1)), samples, CLOSE, 8)
    with pytest.raises(VerifyError, match=r"sample [02] as row 1 of a batch of 2, beside sample [02]:"):
        check(runner(lambda x: x.sum(1) + np.arange(len(x))[:, None] * (x.shape[1] == 3)), samples[:3], CLOSE, 8)


def test_an_output_with_fewer_rows_is_found_in_any_batch() -> None:
    keeps_positive = runner(lambda x: x[x.sum(1) > 1.5])
    with pytest.raises(VerifyError, match=r"'y' has \d rows for a request of \d"):
        check(keeps_positive, SAMPLES, CLOSE, 8)


# --- sizes ------------------------------------------------------------------------------------------------------------

SQUARES: list[Tensors] = [{"x": np.ones((4, 4), np.float32)}] * 2


def test_a_second_size_is_asked_for() -> None:
    seen: list[tuple[int, ...]] = []

    def record(x: Any) -> Any:
        seen.append(x.shape)
        return x

    assert check_sizes(runner(record), SQUARES, {"x": ("h", "w")}) == ""
    assert seen == [(1, 8, 8)]
    assert check_sizes(runner(record), SQUARES, {"x": (4, -1)}) == ""
    assert seen[1:] == [(1, 4, 8)]


def test_what_samples_show_is_not_asked_again() -> None:
    samples: list[Tensors] = [{"x": np.ones((4, 4))}, {"x": np.ones((6, 6))}]
    never = runner(lambda x: pytest.fail("asked"))
    assert check_sizes(never, samples, {"x": ("h", "w")}) == ""
    assert check_sizes(never, SQUARES, {"x": (4, 4)}) == ""


def test_a_model_with_a_limit_is_asked_for_less() -> None:
    def at_most_five(x: Any) -> Any:
        if x.shape[1] > 5:
            raise StepError("position out of range")
        return x

    assert check_sizes(runner(at_most_five), SQUARES, {"x": ("h", "w")}) == ""


def test_a_size_that_cannot_be_tested_is_noted() -> None:
    def four_only(x: Any) -> Any:
        if x.shape[1] != 4:
            raise ServerError("cannot reshape")
        return x

    note = check_sizes(runner(four_only), SQUARES, {"x": ("h", 4)})
    assert note.startswith("dimension 0 of 'x' was tested at 4 only: at 8 and at 2 the model fails (cannot reshape)")
    assert "declare the size under inputs" in note


@pytest.mark.parametrize("dtype", ["float32", "int64", "object"])
def test_a_sample_without_values_is_tried_with_one(dtype: str) -> None:
    """As the past of a decoder, which is empty at the first token."""
    seen: list[Any] = []

    def record(x: Any) -> Any:
        seen.append(x)
        return x

    empty: list[Tensors] = [{"x": np.zeros((2, 0), dtype)}]
    assert check_sizes(runner(record), empty, {"x": (2, "past")}) == ""
    assert [array.shape for array in seen] == [(1, 2, 1)]
    assert seen[0].ravel().tolist() == [b"", b""] if dtype == "object" else [0, 0]


@pytest.mark.parametrize(("size", "others"), [(1, "at 2"), (0, "at 1"), (3, "at 6 and at 1")], ids=str)
def test_the_same_size_is_not_a_second_one(size: int, others: str) -> None:
    def one_size(x: Any) -> Any:
        if x.shape[1] != size:
            raise StepError("cannot reshape")
        return x

    samples: list[Tensors] = [{"x": np.ones((size, 2), np.float32)}]
    note = check_sizes(runner(one_size), samples, {"x": ("rows", 2)})
    assert note.startswith(f"dimension 0 of 'x' was tested at {size} only: {others} the model fails (cannot reshape)")


# --- requests together ------------------------------------------------------------------------------------------------


class Batcher:
    """Runs what arrives at the same time as one execution, as the server's dynamic batcher does."""

    def __init__(self, execute: Callable[[list[Any]], list[Any]]) -> None:
        self._execute = execute
        self._lock = threading.Condition()
        self._waiting: list[Any] = []
        self._answers: dict[int, Any] = {}
        self.requests = self.executions = 0
        self.enabled = True

    def saved(self) -> int:
        return self.requests - self.executions

    def infer(self, inputs: Tensors) -> Tensors:
        with self._lock:
            self.requests += 1
            mine = inputs["x"]
            if not self.enabled:
                self.executions += 1
                return self._answer(self._execute([mine])[0])
            self._waiting.append(mine)
            if len(self._waiting) == 1:
                self._lock.wait(0.05)  # others arrive meanwhile
                together, self._waiting = self._waiting, []
                self.executions += 1
                try:
                    answers = self._execute(together)
                except ValueError as error:  # as Triton: what execute raises is the answer to all
                    answers = [error] * len(together)
                answers += [ValueError("no response")] * (len(together) - len(answers))
                self._answers |= {id(request): answer for request, answer in zip(together, answers, strict=False)}
                self._lock.notify_all()
            while id(mine) not in self._answers:
                self._lock.wait(1)
            return self._answer(self._answers.pop(id(mine)))

    def _answer(self, found: Any) -> Tensors:
        if isinstance(found, ValueError):
            raise ServerError(str(found))
        return {"y": found}


def together(execute: Callable[[list[Any]], list[Any]], *, enabled: bool = True) -> bool:
    batcher = Batcher(execute)
    batcher.enabled = enabled
    return check_requests_together(SampleRunner(batcher.infer, True), SAMPLES, CLOSE, batcher.saved)


def raise_for_nan(request: Any) -> Any:
    if np.isnan(request).any():
        raise ValueError("not a number")
    return request


def test_a_bad_request_may_fail_its_neighbours_in_onnxruntime() -> None:
    """The stock server's onnxruntime backend gives the error of a run to all of its requests."""

    def run(requests: list[Any]) -> list[Any]:
        try:
            return [raise_for_nan(request) for request in requests]
        except ValueError as error:
            raise ValueError(f"onnx runtime error: {error}") from None

    assert together(run)


def test_ragged_requests_that_are_padded_together() -> None:
    """With allow_ragged_batch requests of several sizes meet in one `execute`."""
    samples: list[Tensors] = [{"x": np.ones(size, np.float32)} for size in (2, 3, 5)]

    def pad(requests: list[Any]) -> list[Any]:
        longest = max(request.shape[1] for request in requests)
        return [np.pad(request, ((0, 0), (0, longest - request.shape[1]))) for request in requests]

    batcher = Batcher(pad)
    model = SampleRunner(batcher.infer, True)
    assert check_requests_together(model, samples, CLOSE, batcher.saved)
    with pytest.raises(VerifyError, match=r"at the same time: 'y' has shape \[\d\], its answer alone \[\d\]"):
        check_requests_together(model, samples, CLOSE, batcher.saved, ragged=True)


def test_requests_that_are_answered_one_by_one_pass() -> None:
    assert together(lambda requests: [request * 2 for request in requests])


def test_only_the_first_request_is_answered() -> None:
    with pytest.raises(VerifyError, match=rf"request \d of {REQUESTS} at the same time gets no answer") as caught:
        together(lambda requests: [requests[0] * 2])
    assert "one response for each" in caught.value.hint


def test_answers_in_another_order() -> None:
    with pytest.raises(VerifyError, match="at the same time: 'y' differs by"):
        together(lambda requests: [request * 2 for request in requests[::-1]])


def test_a_bad_request_that_fails_its_neighbours() -> None:
    with pytest.raises(VerifyError, match="beside a bad request gets no answer: not a number") as caught:
        together(lambda requests: [raise_for_nan(request) for request in requests])
    assert "TritonError" in caught.value.hint


def test_a_bad_request_that_fails_alone_passes() -> None:
    def execute(requests: list[Any]) -> list[Any]:
        return [ValueError("not a number") if np.isnan(request).any() else request for request in requests]

    assert together(execute)


def test_a_server_that_never_batches_proves_nothing() -> None:
    assert not together(lambda requests: requests, enabled=False)
