"""A model that answers samples, however it is run: the request is made, and the response taken apart, in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelwright.triton.tensors import Tensors
from modelwright.verification.samples import answers_of, request_of, requests

Infer = Callable[[Tensors], Tensors]  # the tensors of one request, as a client sends them → its outputs


@dataclass(frozen=True)
class SampleRunner:
    infer: Infer
    batched: bool  # whether requests have a batch dimension
    scalars: frozenset[str] = frozenset()  # outputs of declared rank 0

    def ask(self, samples: Sequence[Tensors]) -> list[Tensors]:
        """One request of these samples, which are of equal sizes; one sample without a batch dimension.

        Raises VerifyError for an output without a row for each sample, and what `infer` raises.
        """
        response = self.infer(request_of(samples, batched=self.batched))
        return answers_of(response, len(samples), self.scalars, batched=self.batched)

    def ask_all(self, samples: Sequence[Tensors], batch: int) -> list[Tensors]:
        """All samples, in requests of at most `batch`; one by one if 0."""
        return [answer for part in requests(samples, batch if self.batched else 0) for answer in self.ask(part)]
