"""The step `quantise`: an ONNX graph in INT8 that passes its gates, with as few layers in float as that takes."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright import tools
from modelwright.config.served import ServedView
from modelwright.errors import StepError, VerifyError, located
from modelwright.facts.made import Made
from modelwright.facts.part import Integer, Number, Part
from modelwright.onnx.canonical import save_canonical
from modelwright.onnx.check import read_signature
from modelwright.onnx.runtime import run_session
from modelwright.project.operators import operator_libraries
from modelwright.project.spec import Gates
from modelwright.steps.calibration import calibration_feeds, measured_ranges
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import (
    MODEL,
    baseline_metrics,
    check_gates_known,
    metrics_of,
    onnx_view,
    plain_if_asked,
    rows_a_request,
    runner_of,
)
from modelwright.steps.int8 import prepare, quantise_graph
from modelwright.steps.int8_layers import Layer, choose
from modelwright.steps.onnx import made
from modelwright.steps.samples import load_samples
from modelwright.steps.sensitivity import FloatSearch, Ranked, ranked
from modelwright.steps.smoothing import channel_maxima, smoothed
from modelwright.steps.verify_variant import SENSITIVITY
from modelwright.triton.tensors import Tensors
from modelwright.variants.technique import SOURCE
from modelwright.variants.techniques.quantise import QuantiseOptions
from modelwright.verification.comparison import differences, relative_error
from modelwright.verification.gates import MissedGate, missed_gates
from modelwright.verification.runner import SampleRunner
from modelwright.verification.tolerances import tolerances_in

if TYPE_CHECKING:
    from onnx import ModelProto

_ALPHAS = (0.5, 0.6, 0.7, 0.8, 0.9)  # that `smooth_quant: true` tries
_FINER = 0.05  # then, around the best of them
_SHOWN = 5  # layers that a message names


class FloatLayer(Part):
    """A layer that stays in float, and how far the answers move when it alone is quantised: relative to their size."""

    layer: str
    operator: str
    harm: Number


class QuantisedGraph(Made):
    """A graph in INT8."""

    mode: str = ""
    layers: Integer = 0  # in INT8
    in_float: tuple[FloatLayer, ...] = ()  # worst first; those that options exclude are not among them
    evaluations: Integer = 1  # of candidates against the gates
    error: Number = 0.0  # of the answers to the calibration data, else to the golden samples, relative to their size
    calibrated_on: Integer = 0  # samples
    smooth_quant: Number | None = None  # alpha; None: not used
    instruction_set: str = ""  # of the machine that measured


def run(context: StepContext, out: Path) -> QuantisedGraph:
    """Quantise the source's graph; leave the layers in float that the gates ask for."""
    options = context.options(QuantiseOptions)
    with (
        located(f"{context.builder.name}: quantise"),
        tempfile.TemporaryDirectory(prefix="modelwright-int8-", dir=out.parent) as scratch,
    ):
        check_gates_known(context)
        work = _Work.start(context, options, Path(scratch))
        alpha = work.smooth()
        found = _search(work, _Judge.of(context))
        file = out / MODEL
        file.parent.mkdir()
        save_canonical(work.quantised(found.layers), file)
        if found.ranking:
            listed = [{"layer": item.layer.name, "harm": item.harm} for item in found.ranking]
            (out / SENSITIVITY).write_text(json.dumps(listed, indent=1))
        harms = {item.layer: item.harm for item in found.ranking}
        return QuantisedGraph(
            signature=made(read_signature(file), file, context).signature,
            mode=options.mode,
            layers=len(found.layers),
            in_float=tuple(_in_float(layer, harms[layer]) for layer in found.in_float),
            evaluations=found.evaluations,
            error=_short(work.error_of(found.layers)),
            calibrated_on=work.data if options.calibrates else 0,
            smooth_quant=alpha,
            instruction_set=tools.instruction_set(),
        )


@dataclass
class _Work:
    """One graph on its way to INT8, and what its candidates are measured with."""

    context: StepContext
    options: QuantiseOptions
    scratch: Path
    graph: ModelProto  # in float
    layers: list[Layer]
    feeds: list[Tensors]  # what onnxruntime is given to measure ranges and errors: calibration data, else the samples
    answers: list[Tensors]  # the source's
    data: int  # how many samples the feeds are
    libraries: list[Path]
    _ranges: Any = None

    @classmethod
    def start(cls, context: StepContext, options: QuantiseOptions, scratch: Path) -> _Work:
        source = context.inputs[SOURCE] / MODEL
        view = onnx_view(context, source)
        libraries = list(operator_libraries(context.builder).values())
        graph = prepare(source, scratch, options, libraries)
        layers = choose(graph, options)
        feeds, count = calibration_feeds(context, options, view)
        answers = [run_session(view.session, feed) for feed in feeds]
        return cls(context, options, scratch, graph, layers, feeds, answers, count, libraries)

    def smooth(self) -> float | None:
        """Apply SmoothQuant with the alpha that the options give, or that loses least; None where none helps."""
        wanted = self.options.smooth_quant
        if wanted is False:
            return None
        maxima = channel_maxima(self.graph, self.layers, self.feeds, self.scratch, self.libraries)
        if not maxima:
            hint = "it works on MatMul and Gemm with a weight: leave smooth_quant out"
            raise StepError("smooth_quant: the graph has no layer that it applies to", hint)
        plain = self.graph
        errors: dict[float | None, float] = {}

        def take(alpha: float | None) -> None:
            self.graph, self._ranges = plain if alpha is None else smoothed(plain, self.layers, maxima, alpha), None

        def best_of(alphas: Iterable[float | None]) -> float | None:
            for alpha in alphas:
                take(alpha)
                errors[alpha] = self.error_of(self.layers)
                self.context.say(f"smooth_quant {alpha or 'false'}: error {errors[alpha]:.3g}")
            return min(errors, key=lambda alpha: errors[alpha])

        best: float | None = wanted
        if wanted is True:
            best = best_of((None, *_ALPHAS))
            best = best_of((round(best - _FINER, 2), round(best + _FINER, 2))) if best else best
        take(best)
        return best

    def quantised(self, layers: Sequence[Layer]) -> ModelProto:
        """The graph with these layers in INT8."""
        if self.options.mode == "static" and self._ranges is None:
            self._ranges = measured_ranges(
                self.graph, self.layers, self.options, self.feeds, self.scratch, self.libraries
            )
        return quantise_graph(self.graph, layers, self.options, self._ranges, self.scratch)

    def served(self, layers: Sequence[Layer]) -> ServedView:
        """The same, as it is served."""
        file = self.scratch / "candidate.onnx"
        file.with_name(f"{file.name}.data").unlink(missing_ok=True)
        save_canonical(self.quantised(layers), file)
        return onnx_view(self.context, file)

    def error_of(self, layers: Sequence[Layer]) -> float:
        """How far the answers move, relative to their size."""
        session = self.served(layers).session
        return relative_error(self.answers, [run_session(session, feed) for feed in self.feeds])


@dataclass
class _Judge:
    """What a candidate is held to."""

    context: StepContext
    gates: Gates
    samples: list[Tensors]
    expected: list[Tensors]  # the source's answers to the samples
    plain: SampleRunner | None  # the plain model, where `evaluate` may compare with it

    @classmethod
    def of(cls, context: StepContext) -> _Judge:
        spec = context.builder.spec
        view = onnx_view(context, context.inputs[SOURCE] / MODEL)
        samples = load_samples(context, view.tensors.input_types)
        expected = runner_of(view).ask_all(samples, rows_a_request(spec, len(samples)))
        return cls(context, spec.gates, samples, expected, plain_if_asked(context))

    def missed(self, runner: SampleRunner) -> list[MissedGate]:
        """The gates that a candidate misses: those of metrics, and the tolerance where one is set."""
        metrics = metrics_of(self.context, runner, self.plain)
        missed = missed_gates(self.gates, metrics, baseline_metrics(self.context))
        return [*missed, *self._outside_tolerance(runner)] if self.gates.tolerance else missed

    def _outside_tolerance(self, runner: SampleRunner) -> list[MissedGate]:
        answers = runner.ask_all(self.samples, rows_a_request(self.context.builder.spec, len(self.samples)))
        moved = relative_error(self.expected, answers)
        try:
            _, worst = differences(self.expected, answers, tolerances_in("int8", self.gates, self.expected), "source")
        except VerifyError as error:  # values that are not finite
            return [MissedGate("tolerance", math.inf, 0.0, error.message)]
        return [MissedGate("tolerance", moved, 0.0, f"{worst.text} (sample {worst.sample})")] if worst else []


@dataclass
class _Found:
    layers: list[Layer]  # in INT8
    in_float: list[Layer] = field(default_factory=list)
    ranking: list[Ranked[Layer]] = field(default_factory=list)
    evaluations: int = 1


def _search(work: _Work, judge: _Judge) -> _Found:
    """All layers in INT8, if that passes; else with the fewest in float that do. Raises VerifyError."""
    tried: list[tuple[int, list[MissedGate]]] = [(0, judge.missed(runner_of(work.served(work.layers))))]
    if not tried[0][1]:
        return _Found(work.layers)
    work.context.say(f"all {len(work.layers)} layers in INT8: {tried[0][1][0].text}")

    def harm_of(layer: Layer) -> float:
        harm = work.error_of([layer])
        work.context.say(f"{layer.name} ({layer.operator}) alone: error {harm:.3g}")
        return harm

    ranking = ranked(work.layers, harm_of)

    def passes(in_float: Sequence[Layer]) -> bool:
        missed = judge.missed(runner_of(work.served([layer for layer in work.layers if layer not in in_float])))
        tried.append((len(in_float), missed))
        work.context.say(f"{len(in_float)} layers in float: {missed[0].text if missed else 'passes'}")
        return not missed

    search = FloatSearch(passes, work.options.budget - 1)
    in_float = search.fewest([item.layer for item in ranking])
    if in_float is None:
        raise _no_candidate(work, tried, ranking)
    layers = [layer for layer in work.layers if layer not in in_float]
    return _Found(layers, in_float, ranking, search.evaluations + 1)


def _no_candidate(
    work: _Work, tried: Sequence[tuple[int, list[MissedGate]]], ranking: Sequence[Ranked[Layer]]
) -> VerifyError:
    """What was allowed, what the best candidate measured, and which layers are to blame."""
    count, missed = min(tried, key=lambda item: (len(item[1]), sum(gate.distance for gate in item[1])))
    worst = ", ".join(f"{item.layer.name} ({item.harm:.3g})" for item in ranking[:_SHOWN])
    lines = [
        f"no candidate passes the gates, of {len(tried)} that were evaluated",
        f"the best, with {count} of {len(work.layers)} layers in float: {'; '.join(gate.text for gate in missed)}",
        f"layers that hurt most: {worst}",
    ]
    hints = {
        "smooth_quant: true moves outliers out of the activations": work.options.smooth_quant is False,
        "mode: dynamic measures ranges request by request": work.options.mode == "static",
        "mode: static quantises each row alike": work.options.mode == "dynamic",
        "a larger budget": len(tried) >= work.options.budget,
    }
    wanted = [hint for hint, applies in hints.items() if applies]
    return VerifyError("\n  ".join(lines), f"try {'; '.join(wanted)}; or change the gates and say why")


def _in_float(layer: Layer, harm: float) -> FloatLayer:
    return FloatLayer(layer=layer.name, operator=layer.operator, harm=_short(harm))


def _short(value: float) -> float:
    """A number to read, in a manifest."""
    return float(f"{value:.3g}")
