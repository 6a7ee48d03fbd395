"""Whether the other rows of a request change a row's answer: the server puts requests of several clients together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelwright.errors import ModelwrightError, VerifyError
from modelwright.project.spec import Tolerance
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import differences
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import of_equal_sizes, requests

if TYPE_CHECKING:
    import numpy as np

LARGEST_SHUFFLED = 3  # rows of a batch that is put together in another order
_SHUFFLED = 8  # samples of one size that are asked again in other orders: enough for each to have many neighbours

_HINT = (
    "compute each row from its own values: no sum, mean or index over the batch; raise gates.tolerance if the"
    " difference is acceptable; or set serving.max_batch_size: 0, after which inputs, outputs and samples carry the"
    " batch dimension themselves"
)


def check_rows(
    runner: SampleRunner,
    samples: Sequence[Tensors],
    answers: Sequence[Tensors],
    allowed: Mapping[str, Tolerance],
    batch: int,
    largest: int,
    *,
    may_pad: bool = False,
) -> None:
    """Ask each sample alone, and some in batches of two and three, in other orders and beside others.

    `answers` are what the samples got in requests of at most `batch` neighbours; the server makes batches of at most
    `largest` rows. A model that `may_pad` makes answers as long as the longest of their request, as tokenisers do:
    where a row's shape is another than alone, its values are not compared.
    Raises VerifyError for a row whose answer is not the one that it gets alone, naming the row and its neighbours.
    """
    alone = [answer for sample in samples for answer in runner.ask([sample])]
    first = 0
    for part in requests(samples, batch):
        together = range(first, first + len(part))
        _check_batch(together, [answers[index] for index in together], alone, allowed, may_pad)
        first += len(part)
    for group in of_equal_sizes(samples):
        for shuffled in _batches(_spread(group), largest):
            _check_batch(shuffled, runner.ask([samples[index] for index in shuffled]), alone, allowed, may_pad)
        if largest > 1 and _all_equal([samples[index] for index in group]):
            _check_beside_stranger(runner, samples[group[0]], alone[group[0]], allowed, may_pad)


def _check_batch(
    batch: Sequence[int],
    answers: Sequence[Tensors],
    alone: Sequence[Tensors],
    allowed: Mapping[str, Tolerance],
    may_pad: bool,
) -> None:
    expected = [alone[index] for index in batch]
    _, worst = differences(expected, _compared(expected, answers, may_pad), allowed, "answer alone")
    if worst:
        others = [index for row, index in enumerate(batch) if row != worst.sample]
        where = f"row {worst.sample} of a batch of {len(batch)}"
        beside = f", beside {_listed(others)}" if others else ""
        raise VerifyError(f"sample {batch[worst.sample]} as {where}{beside}: {worst.text}", _HINT)


def _check_beside_stranger(
    runner: SampleRunner, sample: Tensors, alone: Tensors, allowed: Mapping[str, Tolerance], may_pad: bool
) -> None:
    """The only sample of its size, beside its own values in another order, which are most likely in the model's range.

    Floats are doubled, so that another sum or maximum shows; zeros become ones. A model that does not take those proves
    nothing.
    """
    stranger = {name: _other_values(array) for name, array in sample.items()}
    try:
        runner.ask([stranger])
    except ModelwrightError:
        return
    answers = runner.ask([stranger, sample])
    _, worst = differences([alone], _compared([alone], answers[1:], may_pad), allowed, "answer alone")
    if worst:
        raise VerifyError(f"a sample as row 1 of a batch of 2, beside another one: {worst.text}", _HINT)


def _batches(group: Sequence[int], largest: int) -> Iterator[list[int]]:
    """The samples of a group in pairs and in threes, each time in another order."""
    orders = {min(2, largest): list(reversed(group)), min(LARGEST_SHUFFLED, largest): [*group[::2], *group[1::2]]}
    for size, order in orders.items():
        for start in range(0, len(order) if size > 1 else 0, size):
            # The last batch is filled up from the front. A single sample stands beside itself.
            yield [order[at % len(order)] for at in range(start, start + size)]


def _spread(group: Sequence[int]) -> list[int]:
    """At most `_SHUFFLED` of a group, from all of it."""
    step = -(-len(group) // _SHUFFLED)
    return list(group[::step])


def _other_values(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    if array.dtype.kind in "biuf" and (array == array.flat[:1]).all():  # in another order they are the same
        return np.where(array == 0, 1, 2 * array if array.dtype.kind == "f" else 0).astype(array.dtype)
    turned = array.ravel()[::-1].reshape(array.shape)
    return turned * 2 if array.dtype.kind == "f" else turned


def _all_equal(samples: Sequence[Tensors]) -> bool:
    import numpy as np

    return all(np.array_equal(array, samples[0][name]) for sample in samples for name, array in sample.items())


def _compared(alone: Sequence[Tensors], answers: Sequence[Tensors], may_pad: bool) -> Sequence[Tensors]:
    """The answers, with those alone in place of padded ones."""
    if not may_pad:
        return answers
    return [
        {name: array if array.shape == one[name].shape else one[name] for name, array in answer.items()}
        for one, answer in zip(alone, answers, strict=True)
    ]


def _listed(samples: Sequence[int]) -> str:
    shown = ", ".join(map(str, samples[:8]))
    return f"sample{'s' * (len(samples) > 1)} {shown}{', …' * (len(samples) > 8)}"
