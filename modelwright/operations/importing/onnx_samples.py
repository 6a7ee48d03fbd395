"""Which random samples an ONNX model takes: tried, until some pass what the build will ask of it."""

from __future__ import annotations

import runpy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.config.served import ServedView
from modelwright.errors import ModelwrightError, StepError
from modelwright.onnx.ids import IdLimit
from modelwright.onnx.signature import Signature, Value
from modelwright.operations.importing.generated_samples import OPEN_RANGES, SAMPLES, Generated, Sizes
from modelwright.project.spec import Builder
from modelwright.steps.samples import as_declared, as_samples
from modelwright.triton.tensors import Tensors
from modelwright.verification.batches import check_rows
from modelwright.verification.comparison import check_repeatable
from modelwright.verification.runner import SampleRunner
from modelwright.verification.sizes import check_sizes
from modelwright.verification.tolerances import tolerances

DATA = "data.py"
# Most networks halve an image five times, so that its sides are multiples of 32. Small sizes are tried first.
_SIZES = (32, 64, 16, 128, 224, 256, 512, 48, 320, 640, 8, 576, 4, 2, 1)


@dataclass(frozen=True)
class LoadedModel:
    """A model in onnxruntime."""

    folder: Path  # of the builder
    session: Any
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    signature: Signature


@dataclass(frozen=True)
class Attempt:
    """A builder that was tried. `reason` says why it does not build; '' for one that does."""

    batched: bool
    generated: Generated
    reason: str = ""
    other_outputs: str = ""  # how answers differ from the shapes that the file declares
    note: str = ""


@dataclass(frozen=True)
class Search:
    """Looks for random samples that pass what the build asks of the model."""

    model: LoadedModel
    builder: Builder
    view: ServedView
    limits: Mapping[str, IdLimit]
    deadline: float

    def run(self) -> Attempt:
        batched, first_reason = self.builder.spec.batched, ""
        for candidate in self._candidates():
            reason = self._answers(candidate)
            if reason:
                first_reason = first_reason or reason
                continue
            found = self._of_two_sizes(candidate)
            try:
                other_outputs, note = self._verified(found)
                return Attempt(batched, found, other_outputs=other_outputs, note=note)
            except ModelwrightError as error:
                if batched:  # other samples would not make its rows independent
                    return Attempt(batched, found, error.message)
                first_reason = first_reason or error.message
        return Attempt(batched, next(self._candidates()), first_reason)

    def _candidates(self) -> Iterator[Generated]:
        """Each set of samples once; fewer when time is up."""
        seen: set[str] = set()
        for normal in (False, True):
            for integers in OPEN_RANGES:
                for size in _SIZES:
                    found = self._generated([Sizes(1, size)] * SAMPLES, integers, normal)
                    text = found.text("")
                    if text not in seen and (not seen or time.monotonic() < self.deadline):
                        seen.add(text)
                        yield found

    def _generated(self, sizes: Sequence[Sizes], integers: tuple[int, int], normal: bool) -> Generated:
        return Generated(self.model.inputs, self.limits, self.builder.spec.batched, sizes, integers, normal)

    def _of_two_sizes(self, found: Generated) -> Generated:
        """The same with two samples of another size, where the model takes one."""
        first = found.sizes[0]
        others = [2 * first.others, first.others // 2, *_SIZES[:6]] if found.variables else []
        for other in others:
            for rows in (2, 1):
                second = Sizes(rows, max(other, 1))
                both = self._generated([first, first, second, second], found.integers, found.normal)
                if second.others != first.others and not self._answers(both):
                    return both
        return found

    def _answers(self, candidate: Generated) -> str:
        """Why the model does not take the first and the last sample; '' if it does."""
        samples = self._samples(candidate)
        try:
            for sample in (samples[0], samples[-1]):
                self._runner.ask([sample])
        except ModelwrightError as error:
            return error.message
        return ""

    def _verified(self, candidate: Generated) -> tuple[str, str]:
        """Do what the verify step does. Raises ModelwrightError.

        Returns how the answers differ from the declared outputs, and which sizes could not be tested.
        """
        samples, spec = self._samples(candidate), self.builder.spec
        rows = len(samples) if spec.batched else 0
        actual, other_outputs = self._runner.ask_all(samples, rows), ""
        answers = actual
        try:
            answers = as_declared(actual, spec.outputs, "its answer")
        except StepError as error:
            other_outputs = error.message
        allowed = tolerances(spec.gates, answers[0])
        check_repeatable(answers, self._runner.ask_all(samples, rows), allowed)
        if spec.batched:
            check_rows(self._runner, samples, actual, allowed, rows, spec.max_batch_size)
        return other_outputs, check_sizes(self._runner, samples, self.view.dims)

    @property
    def _runner(self) -> SampleRunner:
        return SampleRunner(self.view.run, self.builder.spec.batched, self.view.scalars)

    def _samples(self, candidate: Generated) -> list[Tensors]:
        """The samples that data.py gives, from the file itself."""
        file = self.model.folder / DATA
        file.write_text(candidate.text(self.builder.name), encoding="utf-8")
        found = runpy.run_path(str(file))["samples"]()
        return as_declared(as_samples(found, DATA), self.builder.spec.inputs, DATA)
