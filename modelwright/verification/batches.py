"""Running samples through a model in batches, and whether the batch changes a sample's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from modelwright.errors import VerifyError
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.tolerances import default_tolerances

Infer = Callable[[Tensors], Tensors]  # inputs of one request → outputs


def in_batches(infer: Infer, inputs: Tensors, batch: int) -> Tensors:
    """Run any number of samples, in requests of at most `batch` rows; if 0, one by one without a batch dimension."""
    import numpy as np

    answers = [infer(part) for part in _parts(inputs, batch)]
    merge = np.concatenate if batch else np.stack
    return {name: merge([answer[name] for answer in answers]) for name in answers[0]}


def check_rows_independent(infer: Infer, samples: Tensors, answers: Tensors) -> None:
    """Check that a sample alone is answered as it was among others: the server batches requests of several clients.

    `answers` are those of `samples` in one batch. Raises VerifyError.
    """
    alone = infer({name: array[:1] for name, array in samples.items()})
    first = {name: array[:1] for name, array in answers.items()}
    try:
        compare_outputs(first, alone, default_tolerances(first))
    except VerifyError as error:
        raise VerifyError(
            f"a sample alone in its batch gets another answer than among others: {error.message}",
            "compute per row in the model, or set serving.max_batch_size: 0",
        ) from None


def _parts(inputs: Tensors, batch: int) -> Iterator[Tensors]:
    count = len(next(iter(inputs.values())))
    for start in range(0, count, batch or 1):
        if batch:
            yield {name: array[start : start + batch] for name, array in inputs.items()}
        else:
            yield {name: array[start] for name, array in inputs.items()}
