"""A graph in half precision, as accurate as its gates ask.

1. What half precision cannot hold stays in float32: constants, and values that are too large on the golden samples.
2. The graph is emulated (`onnx/emulation`), because onnxruntime's CPU hides overflow and has no BF16. Its answers are
   held to what the verification will hold them to.
3. Where they miss that, nodes are ranked by the error that they add. The worst 1, 2, 4, … stay in float32 until the
   answers pass; then as few of them as the budget finds out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.config.served import EMULATED
from modelwright.errors import StepError, VerifyError, located
from modelwright.facts.made import Made
from modelwright.facts.part import Integer
from modelwright.onnx.canonical import canonicalise, load, save_canonical
from modelwright.onnx.check import read_signature
from modelwright.onnx.emulation import emulated
from modelwright.onnx.opsets import at_least
from modelwright.onnx.precision import (
    AS_GOOD_AS_INFINITE,
    BF16,
    FP16,
    Lowered,
    Precision,
    lift_constants,
    lower,
    why_nothing,
)
from modelwright.onnx.runtime import run_session
from modelwright.onnx.values import FLOAT, exposing_session, largest_values, value_types
from modelwright.project.operators import operator_libraries
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import (
    MODEL,
    baseline_metrics,
    metrics_of,
    onnx_runner,
    onnx_view,
    plain_if_asked,
    rows_a_request,
    runner_of,
)
from modelwright.steps.onnx import made
from modelwright.steps.samples import load_samples
from modelwright.steps.verify_variant import SENSITIVITY
from modelwright.suggest import did_you_mean
from modelwright.triton.arrays import rounded_to
from modelwright.triton.tensors import Tensors
from modelwright.variants.half import KERNELS, HalfOptions
from modelwright.variants.technique import SOURCE
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.gates import missed_gates
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import request_of, requests
from modelwright.verification.tolerances import tolerances_in

if TYPE_CHECKING:
    from onnx import ModelProto

_BF16_OPSET = 22  # the first in which ONNX's convolutions and pools take it
_WHERE_OPSET = 9  # the first with the operators that measure how large values are
_HEADROOM = 2.0  # other inputs than the samples may give larger values
_ROWS, _REQUESTS = 8, 4  # of the samples that values inside the graph are measured on
_AT_ONCE = 50  # values of the graph that are kept in memory
_RANKED = 20  # nodes in sensitivity.json


class Halved(Made):
    """Facts of a graph in half precision."""

    nodes: Integer  # that compute in it
    kept: dict[str, str]  # node that could, and stays in float32 → why
    tried: Integer  # graphs that were held to the gates


def halve(context: StepContext, out: Path, precision: Precision) -> Halved:
    """Make `version/model.onnx` of half precision, and for BF16 the graph that emulates it.

    Raises StepError where there is nothing to convert, VerifyError where no candidate is accurate enough.
    """
    with located(f"{context.builder.file}: variant {context.builder.name}: {precision.name}"):
        search = _Search(context, out, precision)
        lowered = search.run()
    (out / "version").mkdir()
    file = out / MODEL
    save_canonical(lowered.model, file)
    for path in out.glob(f"{EMULATED}*"):
        path.unlink()
    loads = file
    if precision is BF16:  # which onnxruntime's CPU does not load: the source has the same inputs and outputs
        loads = context.inputs[SOURCE] / MODEL
        save_canonical(emulated(lowered), out / EMULATED)
    signature = made(read_signature(file), loads, context).signature
    kept = dict(sorted(lowered.kept.items()))
    return Halved(signature=signature, nodes=len(lowered.nodes), kept=kept, tried=search.tried)


class _Search:
    def __init__(self, context: StepContext, out: Path, precision: Precision) -> None:
        self.tried = 0
        self._context = context
        self._out = out
        self._precision = precision
        self._options = context.options(HalfOptions)
        self._libraries = tuple(operator_libraries(context.builder).values())
        self._view = onnx_view(context, context.inputs[SOURCE] / MODEL)
        self._samples = load_samples(context, self._view.tensors.input_types)
        self._batch = rows_a_request(context.builder.spec, len(self._samples))
        self._model = self._graph()
        self._types = value_types(self._model, out, self._libraries)

    def run(self) -> Lowered:
        keep = self._asked_for()
        keep |= self._too_large(self._some(self._lower(keep)))
        lowered = self._some(self._lower(keep))
        expected = runner_of(self._view).ask_all(self._samples, self._batch)
        missed = self._missed(lowered, expected)
        if not missed:
            return lowered
        return self._accurate(keep, lowered, expected, missed)

    def _some(self, lowered: Lowered) -> Lowered:
        """The graph itself, if a node of it computes in half precision. Raises StepError."""
        if not lowered.nodes:
            raise StepError(why_nothing(self._model, lowered, self._types), f"leave {self._precision.name} out")
        return lowered

    def _graph(self) -> ModelProto:
        """The source's graph, canonical, in an opset that has half precision, its constants as weights."""
        model = canonicalise(load(self._context.inputs[SOURCE] / MODEL))
        if self._precision is BF16:
            model = canonicalise(at_least(model, min(_BF16_OPSET, self._context.target.max_opset)))
        lift_constants(model)
        return model

    def _lower(self, keep: Mapping[str, str]) -> Lowered:
        on_cuda = self._context.config.get(KERNELS) == "cuda"
        return lower(self._model, self._precision, self._types, keep, on_cuda=on_cuda)

    def _asked_for(self) -> dict[str, str]:
        """{node: why it stays in float32} of what `keep_float32` names."""
        nodes = self._model.graph.node
        names = {node.name for node in nodes}
        types = {node.op_type for node in nodes}
        keep: dict[str, str] = {}
        for wanted in self._options.keep_float32:
            if wanted not in names | types:
                hint = did_you_mean(wanted, types | names)
                raise StepError(f"keep_float32: the graph has no operator and no node '{wanted}'", hint)
            keep |= {node.name: "keep_float32" for node in nodes if wanted in (node.name, node.op_type)}
        return keep

    # ---- too large for FP16

    def _too_large(self, lowered: Lowered) -> dict[str, str]:
        """{node: why} of the nodes that read or make values which half precision cannot hold, on the samples."""
        opset = max(item.version for item in self._model.opset_import if item.domain in ("", "ai.onnx"))
        if self._precision is not FP16 or opset < _WHERE_OPSET:
            return {}
        low = set(lowered.nodes)
        nodes = [node for node in self._model.graph.node if node.name in low]
        weights = {tensor.name for tensor in self._model.graph.initializer}
        around = {node.name: [*node.input, *node.output] for node in nodes}
        names = sorted(
            {name for group in around.values() for name in group if self._types.get(name) == FLOAT} - weights
        )
        largest = largest_values(
            self._model, names, self._feeds(), self._out, self._libraries, limit=AS_GOOD_AS_INFINITE
        )
        limit = self._precision.largest / _HEADROOM
        found: dict[str, str] = {}
        for node, group in around.items():
            worst = max((name for name in group if name in largest), key=largest.__getitem__, default=None)
            if worst is not None and largest[worst] > limit:
                size = f"'{worst}' reaches {largest[worst]:.1e} on the samples"
                found[node] = f"{size}, {self._precision.label} ends at {self._precision.largest:.6g}"
        return found

    def _feeds(self) -> Iterator[Tensors]:
        """What onnxruntime gets for the first samples, a few rows at a time."""
        parts = list(requests(self._samples, min(self._batch, _ROWS)))[:_REQUESTS]
        for part in parts:
            request = request_of(part, batched=self._view.batched)
            yield self._view.feed(rounded_to(request, self._view.tensors.input_types))

    # ---- accurate enough

    def _accurate(self, keep: dict[str, str], lowered: Lowered, expected: list[Tensors], missed: str) -> Lowered:
        """The graph with the fewest nodes in float32 that passes, as far as the budget finds out."""
        ranked = self._ranked(lowered)
        self._write_ranking(ranked)
        best, too_few, enough = None, 0, None  # counts of nodes to keep; with `enough` it passes, or nothing is left
        count: int | None = 1
        while count is not None and self.tried <= self._options.budget:
            reasons = {node: f"it adds a relative error of {harm:.1e}" for node, harm in ranked[:count]}
            lowered = self._lower(keep | reasons)
            problem = self._missed(lowered, expected) if lowered.nodes else ""
            if problem:
                missed, too_few = problem, count
            else:
                enough = count
                best = lowered if lowered.nodes else best
            count = _next_count(too_few, enough, len(ranked))
        if best is None:
            raise self._not_accurate(missed, ranked)
        return best

    @cached_property
    def _plain(self) -> SampleRunner | None:
        """For `evaluate`: loaded once for all candidates."""
        return plain_if_asked(self._context)

    def _missed(self, lowered: Lowered, expected: list[Tensors]) -> str:
        """What the verification would say of a candidate; '' where it would pass it."""
        spec = self._context.builder.spec
        self.tried += 1
        file = self._out / EMULATED
        save_canonical(emulated(lowered), file)
        runner = onnx_runner(self._context, file)
        if spec.gates.metrics and not spec.gates.tolerance:
            metrics = metrics_of(self._context, runner, self._plain)
            return "; ".join(gate.text for gate in missed_gates(spec.gates, metrics, baseline_metrics(self._context)))
        try:
            actual = runner.ask_all(self._samples, self._batch)
            compare_outputs(expected, actual, tolerances_in(self._precision.name, spec.gates, expected))
        except VerifyError as error:
            return error.message
        return ""

    def _ranked(self, lowered: Lowered) -> list[tuple[str, float]]:
        """[(node, the relative error that it adds)] of the nodes in half precision, the worst first."""
        low = set(lowered.nodes)
        nodes = [node for node in self._model.graph.node if node.name in low]
        made_low = {name for node in nodes for name in node.output if name in lowered.names}
        read = {name for node in nodes for name in node.input if name in lowered.names}
        errors = self._errors(sorted(made_low | (read & self._computed())), lowered)
        harm = {
            node.name: max((errors.get(name, 0.0) for name in node.output), default=0.0)
            - max((errors.get(name, 0.0) for name in node.input), default=0.0)
            for node in nodes
        }
        return sorted(harm.items(), key=lambda item: (-item[1], item[0]))

    def _computed(self) -> set[str]:
        return self._types.keys() - {tensor.name for tensor in self._model.graph.initializer}

    def _errors(self, names: Sequence[str], lowered: Lowered) -> dict[str, float]:
        """{float32 tensor: how far half precision is from it, as a share of its length}."""
        exact = exposing_session(self._model, names, self._out, self._libraries)
        low = [lowered.names[name] for name in names]
        rounded = exposing_session(emulated(lowered), low, self._out, self._libraries)
        errors = dict.fromkeys(names, 0.0)
        for feed in self._feeds():
            for start in range(0, len(names), _AT_ONCE):
                part = slice(start, start + _AT_ONCE)
                one, other = run_session(exact, feed, names[part]), run_session(rounded, feed, low[part])
                for name in names[part]:
                    errors[name] = max(errors[name], _distance(other[lowered.names[name]], one[name]))
        return errors

    def _write_ranking(self, ranked: Sequence[tuple[str, float]]) -> None:
        layers = [{"layer": node, "harm": min(harm, 1e9)} for node, harm in ranked[:_RANKED]]
        (self._out / SENSITIVITY).write_text(json.dumps(layers))

    def _not_accurate(self, missed: str, ranked: Sequence[tuple[str, float]]) -> VerifyError:
        worst = ", ".join(node for node, _ in ranked[:3])
        return VerifyError(
            f"not accurate enough in {self._precision.label}, {self.tried} graphs tried: {missed}",
            f"most error comes from {worst}; gates: a metric, or tolerance, says what the model may lose; budget tries"
            f" more; else leave {self._precision.name} out",
        )


def _next_count(too_few: int, enough: int | None, most: int) -> int | None:
    """Twice as many as were too few; then between those and what is enough. None: nothing is left to find out."""
    if enough is None:
        return min(2 * too_few, most) if too_few < most else None
    return (too_few + enough) // 2 if enough - too_few > 1 else None


def _distance(actual: Any, exact: Any) -> float:
    """|actual - exact| / |exact|, 0 where both are empty or equal; infinite for values that are not finite."""
    import numpy as np

    one, other = actual.astype(np.float64).ravel(), exact.astype(np.float64).ravel()
    finite = np.isfinite(other)
    if one.shape != other.shape or not np.isfinite(one[finite]).all():
        return float("inf")
    difference, length = np.linalg.norm(one[finite] - other[finite]), np.linalg.norm(other[finite])
    return float(difference / length) if length else float(difference > 0)
