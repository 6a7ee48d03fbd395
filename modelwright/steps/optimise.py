"""The step `optimise`: the fastest of several graphs that libraries make, if it is faster than the plain one.

Candidates (`candidates`) are measured in turns, on one thread, as the server runs them: onnxruntime optimises each
graph again when it loads it, so most of what a library does is done anyway. The plain graph is measured twice, and what
its two sessions differ by is noise. The best candidate is measured once more, in new sessions.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from modelwright.config.served import ServedView
from modelwright.errors import StepError, located
from modelwright.facts.made import Made
from modelwright.facts.part import Number, Part
from modelwright.onnx.check import read_signature
from modelwright.steps.candidates import Candidates, DroppedError, Ready
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import MODEL, onnx_view, rows_a_request, runner_of
from modelwright.steps.onnx import made
from modelwright.steps.samples import load_samples
from modelwright.triton.arrays import rounded_to
from modelwright.triton.tensors import Tensors
from modelwright.variants.technique import SOURCE
from modelwright.variants.techniques.optimise import OptimiseOptions
from modelwright.verification.pace import interleaved
from modelwright.verification.samples import of_equal_sizes, request_of

PLAIN = "plain"
_AGAIN = "plain, again"
_WORK = "candidates"
_SECONDS = 0.2  # of measuring, for each graph and batch
_BLOCKS = 8


class Tried(Part):
    """One candidate, and what became of it."""

    candidate: str
    result: str  # kept, or why not
    ratios: dict[str, Number] = Field(default_factory=dict)  # rows → time, as a share of the plain graph's


class Optimised(Made):
    """Facts of an optimised graph."""

    kept: str  # the candidate; "plain" where none is faster
    tried: tuple[Tried, ...]


def run(context: StepContext, out: Path) -> Optimised:
    source = context.inputs[SOURCE] / MODEL
    with located(f"{context.builder.file}: variant {context.builder.name}: optimise"):
        kept, tried = _chosen(context, source, out / _WORK)
    for item in tried:
        ratios = ", ".join(f"{ratio:.3f} of the plain graph's time at {rows}" for rows, ratio in item.ratios.items())
        context.say(f"{item.candidate}: {item.result}{f' ({ratios})' if ratios else ''}")
    shutil.copytree((kept.file if kept else source).parent, out / "version")
    shutil.rmtree(out / _WORK)
    signature = made(read_signature(out / MODEL), out / MODEL, context).signature
    return Optimised(signature=signature, kept=kept.name if kept else PLAIN, tried=tuple(tried))


def _chosen(context: StepContext, source: Path, work: Path) -> tuple[Ready | None, list[Tried]]:
    """(the candidate that is kept, what was tried). Raises StepError for a chosen one that cannot be served."""
    options = context.options(OptimiseOptions)
    view = onnx_view(context, source)
    samples = load_samples(context, view.tensors.input_types)
    batch = rows_a_request(context.builder.spec, len(samples))
    candidates = Candidates(context, source, work, samples, batch, runner_of(view).ask_all(samples, batch))
    if options.choose:
        try:
            chosen = candidates.make(options.choose)
        except DroppedError as dropped:
            raise StepError(
                f"choose: {options.choose}: {dropped}", "choose another one, or leave `choose` out"
            ) from dropped
        return chosen, [Tried(candidate=chosen.name, result="kept: chosen, not measured")]
    ready: list[Ready] = []
    tried: list[Tried] = []
    for name in dict.fromkeys(options.candidates):
        try:
            ready.append(candidates.make(name))
        except DroppedError as dropped:
            tried.append(Tried(candidate=name, result=str(dropped)))
    race = _Race(context, source, view, samples)
    best = race.fastest(ready) if ready else None
    return best, tried + [_reported(item, best, race.noise) for item in ready]


def _reported(item: Ready, best: Ready | None, noise: float) -> Tried:
    result = f"dropped: no clear gain, where two runs of the plain graph differ by up to {noise:.1%}"
    if item is best:
        result = "kept"
    elif best is not None and _mean(item) < 1:
        result = f"dropped: {best.name} is faster"
    return Tried(candidate=item.name, result=result, ratios={str(rows): ratio for rows, ratio in item.ratios.items()})


class _Race:
    """Measures candidates against the plain graph."""

    def __init__(self, context: StepContext, source: Path, view: ServedView, samples: Sequence[Tensors]) -> None:
        self._context = context
        self._source = source
        self._margin = context.options(OptimiseOptions).margin
        self.noise = 0.0  # how far two sessions of the plain graph are apart
        group = max(of_equal_sizes(samples), key=len)
        rows = sorted({1, context.config["batch"]}) if view.batched else [1]
        self._requests = {
            count: rounded_to(
                request_of([samples[group[index % len(group)]] for index in range(count)], batched=view.batched),
                view.tensors.input_types,
            )
            for count in rows
        }

    def fastest(self, ready: Sequence[Ready]) -> Ready | None:
        """The fastest candidate whose gain is clear in two measurements."""
        for best in sorted(self._faster(ready), key=_mean):
            if self._faster([best]):
                return best
        return None

    def _faster(self, ready: Sequence[Ready]) -> list[Ready]:
        """The candidates with a clear gain for some request, a clear loss for none, and a gain over all of them. Notes
        the ratios of all."""
        files = {PLAIN: self._source, _AGAIN: self._source, **{item.name: item.file for item in ready}}
        views = {name: onnx_view(self._context, file) for name, file in files.items()}
        gains: set[str] = set()
        losses: set[str] = set()
        for rows, request in self._requests.items():
            calls = {name: view.prepared(request) for name, view in views.items()}
            # The time of this thread: what others do on a shared machine does not count.
            times = interleaved(calls, seconds=_SECONDS * len(calls), clock=time.thread_time)
            shares = {name: _quartiles(values, times[PLAIN]) for name, values in times.items()}
            noise_low, _, noise_high = shares[_AGAIN]
            self.noise = max(self.noise, 1 - noise_low, noise_high - 1)
            for item in ready:
                low, middle, high = shares[item.name]
                item.ratios[rows] = round(middle, 3)
                if middle <= 1 - self._margin and high < min(noise_low, 1.0):
                    gains.add(item.name)
                if middle >= 1 + self._margin and low > max(noise_high, 1.0):
                    losses.add(item.name)
        return [item for item in ready if item.name in gains - losses and _mean(item) <= 1 - self._margin]


def _quartiles(times: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """The quartiles of the ratio of two times, over blocks of rounds: of each block the fastest round counts."""
    size = max(1, len(times) // _BLOCKS)
    starts = range(0, len(times) - size + 1, size)
    ratios = [min(times[start : start + size]) / min(base[start : start + size]) for start in starts]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return low, middle, high


def _mean(item: Ready) -> float:
    return statistics.geometric_mean(item.ratios.values())
