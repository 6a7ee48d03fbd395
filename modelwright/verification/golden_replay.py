"""Golden replay of one version: send its golden inputs to a server, and compare the answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelwright.facts.verified import GoldenComparison
from modelwright.triton.client import Client
from modelwright.triton.routers import answering_arms
from modelwright.triton.sequences import whole_sequence
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import WorstDifference, differences, nearest
from modelwright.verification.golden import load_golden
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import scalars_of


@dataclass(frozen=True)
class GoldenAnswer:
    """How a server answered golden samples: the largest difference, and the worst that is not allowed, if any."""

    samples: int
    max_abs_error: float
    worst: WorstDifference | None

    @property
    def difference(self) -> str:
        """`'y' differs by … (worst of 4 samples: 2)`; '' where no answer differs by more than is allowed."""
        return f"{self.worst.text} (worst of {self.samples} samples: {self.worst.sample})" if self.worst else ""


def ask_golden(
    client: Client, model: str, version: int, golden: Path, comparison: GoldenComparison, max_batch_size: int
) -> GoldenAnswer:
    """Ask a server for a version's golden samples.

    Which arm of a router answers is not known, and arms have newer versions: it must answer as one of them does now.
    Raises ServerError for a request that the server refuses, VerifyError for answers that cannot be compared.
    """
    inputs, expected = load_golden(golden)
    place = whole_sequence(client, model)
    batch = min(comparison.batch, max_batch_size)

    def answers(name: str, number: int | None) -> list[Tensors]:
        def infer(part: Tensors) -> Tensors:
            return client.infer(name, part, version="" if number is None else str(number), sequence=place)

        return SampleRunner(infer, bool(batch), frozenset(scalars_of(expected))).ask_all(inputs, batch)

    actual = answers(model, version)
    if arms := answering_arms(client.config(model)):
        expected = nearest([answers(arm.model, arm.version) for arm in arms], actual)
    errors, worst = differences(expected, actual, comparison.tolerance, "nearest arm" if arms else "source")
    return GoldenAnswer(len(expected), max(errors.values(), default=0.0), worst)
