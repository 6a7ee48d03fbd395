"""The step that passes or refuses a variant: against the export that its graph was made of, and the plain model.

Numbers are compared with the export: within `gates.tolerance`, else by the precision that the variant computes in. A
technique that is lossy by nature is held by metrics instead, and the difference is only reported. Metrics are compared
with the plain model's, which the step `baseline` measured. The golden samples are the variant's own answers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from modelwright import tools
from modelwright.config.served import EMULATED
from modelwright.errors import VerifyError, located
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.verified import GoldenComparison, Verified
from modelwright.project.spec import Tolerance
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import (
    MODEL,
    baseline_metrics,
    evaluation_of,
    onnx_runner,
    onnx_view,
    plain_if_asked,
    rows_a_request,
    runnable,
    runner_of,
)
from modelwright.steps.samples import as_declared, load_samples
from modelwright.steps.verify import Answered, check_kept_rows, checked_folds, expected_of, with_notes
from modelwright.triton.arrays import is_float
from modelwright.triton.layout import GOLDEN
from modelwright.triton.tensors import Tensors
from modelwright.variants.technique import PLAIN
from modelwright.variants.techniques.quantise import QuantiseOptions
from modelwright.verification.comparison import compare_outputs, differences, worst_samples
from modelwright.verification.gates import check_gates, check_latency, check_size
from modelwright.verification.golden import save_golden
from modelwright.verification.pace import interleaved, ratio
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import of_equal_sizes, request_of
from modelwright.verification.sizes import check_sizes
from modelwright.verification.tolerances import UNBOUNDED, tolerances_in

SENSITIVITY = "sensitivity.json"  # in the folder of a step that ranked layers: [{"layer": …, "harm": …}], worst first
_SHOWN = 5  # of the layers that hurt most
_EXPECTED = "expected"  # role of the export
_EMULATED_NOTE = "onnxruntime's CPU cannot run this graph: a float32 graph with the same rounding was verified"


def run(context: StepContext, out: Path) -> Verified:
    """Verify a variant in onnxruntime."""
    spec = context.builder.spec
    with located(f"{spec.name}: verify"):
        file = runnable(context.inputs["model"])
        view = onnx_view(context, file)
        runner = runner_of(view)
        samples = load_samples(context, view.tensors.input_types)
        answered = hold(context, runner, samples, rows_a_request(spec, len(samples)), out)
        if spec.batched:
            with _row_hint(context):
                check_kept_rows(context, runner, samples, answered, rows_a_request(spec, len(samples)))
        if spec.gates.latency:
            found = _latency_ratio(context, runner, samples)
            check_latency(spec.gates, found)
            answered = Answered(
                answered.actual, answered.allowed, answered.facts.model_copy(update={"latency_ratio": round(found, 3)})
            )
        emulated = _EMULATED_NOTE if file.name == EMULATED else ""
        return with_notes(answered, *answered.facts.notes, emulated, check_sizes(runner, samples, view.dims))


def hold(
    context: StepContext,
    runner: SampleRunner,
    samples: list[Tensors],
    batch: int,
    out: Path,
    largest: int | None = None,
) -> Answered:
    """Run the samples, compare, evaluate, hold to the gates; keep `out`/golden.npz. However the variant is run.

    `largest`: rows a request of `evaluate`, where the variant takes fewer than the plain model, whose metrics are
    measured with all rows of a call at once. Where rows move each other, another number gives other metrics.
    """
    spec, precision = context.builder.spec, context.config["variant"]["precision"]
    actual = as_declared(runner.ask_all(samples, batch), spec.outputs, "its answer")
    expected = _export_answers(context, samples, batch, actual[0])
    own = tolerances_in(precision, spec.gates, actual)
    errors = _compared(context, expected, actual, tolerances_in(precision, spec.gates, expected))
    plain = baseline_metrics(context)
    evaluation = evaluation_of(context, runner, plain_if_asked(context), batch=largest)
    check_gates(spec.gates, evaluation.metrics, plain, _details(context, expected, actual))
    folds = checked_folds(context)
    size, plain_size = (_size(context.inputs[role]) for role in ("model", PLAIN))
    check_size(spec.gates, size, plain_size)
    save_golden(out / GOLDEN, samples, actual, batch)
    facts = Verified(
        compared_with=ComparedWith.SOURCE,
        max_abs_error=errors,
        samples=len(samples),
        metrics=evaluation.metrics,
        confusion=evaluation.confusion,
        folds=folds,
        golden=GoldenComparison(batch=batch, tolerance=own),
        precision=precision,
        instruction_set=tools.instruction_set(),
        plain_metrics=plain,
        size_ratio=round(size / plain_size, 4) if plain_size else None,
    )
    return Answered(actual, own, facts)


def _export_answers(context: StepContext, samples: list[Tensors], batch: int, answer: Tensors) -> list[Tensors]:
    """What the export answers: kept by its step, the builder's reference, or asked now."""
    known = expected_of(context, samples, batch, answer, role=_EXPECTED)
    if known is not None:
        return known
    return as_declared(
        onnx_runner(context, context.inputs[_EXPECTED] / MODEL).ask_all(samples, batch),
        context.builder.spec.outputs,
        "the source's answer",
    )


def _compared(
    context: StepContext,
    expected: Sequence[Tensors],
    actual: Sequence[Tensors],
    allowed: Mapping[str, Tolerance],
) -> dict[str, float]:
    """Hold the answers to those of the export, or only measure how far they are where metrics hold the variant."""
    spec = context.builder.spec
    if not context.config["variant"]["lossy"] or spec.gates.tolerance or not spec.gates.metrics:
        return compare_outputs(expected, actual, allowed, "source", _hint(context))
    floats = {name for name, array in expected[0].items() if is_float(array.dtype)}
    largest, worst = differences(expected, actual, dict.fromkeys(floats, UNBOUNDED), "source")
    if worst and worst.shape:
        raise VerifyError(worst.text)
    return largest


@contextlib.contextmanager
def _row_hint(context: StepContext) -> Iterator[None]:
    """Say what makes rows depend on each other where a technique does."""
    variant = context.builder.variant
    options = [step.options for step in variant.techniques] if variant else []
    try:
        yield
    except VerifyError as error:
        if not any(isinstance(given, QuantiseOptions) and given.mode == "dynamic" for given in options):
            raise
        hint = (
            "dynamic quantisation gives all rows of a request one range: mode: static has fixed ranges; or raise"
            " gates.tolerance if an accuracy gate passes. Outputs of integers, such as labels, must be equal"
        )
        raise VerifyError(error.message, hint) from None


def _hint(context: StepContext) -> str:
    precision = context.config["variant"]["precision"]
    if precision in ("fp16", "bf16"):
        return "keep the operators that lose most in float32 (keep_float32), or set gates.tolerance and say why"
    return "set gates.tolerance and say why; or leave the technique out"


def _details(context: StepContext, expected: Sequence[Tensors], actual: Sequence[Tensors]) -> list[str]:
    """What helps to understand a gate that was missed."""
    lines = []
    if worst := worst_samples(expected, actual):
        lines.append(f"worst samples: {worst}")
    ranked = context.inputs["model"] / SENSITIVITY
    if ranked.is_file():
        layers = json.loads(ranked.read_text())[:_SHOWN]
        shown = ", ".join(f"{layer['layer']} ({layer['harm']:.3g})" for layer in layers)
        lines.append(f"layers that hurt most: {shown}")
    return lines


def _size(folder: Path) -> int:
    """Bytes of what a version would hold."""
    return sum(path.stat().st_size for path in (folder / "version").rglob("*") if path.is_file())


def _latency_ratio(context: StepContext, runner: SampleRunner, samples: list[Tensors]) -> float:
    """Time of the variant for one request, as a share of the plain model's, in turns."""
    gate = context.builder.spec.gates.latency
    assert gate is not None
    plain = onnx_runner(context, context.inputs[PLAIN] / MODEL)
    group = max(of_equal_sizes(samples), key=len)
    rows = [samples[group[index % len(group)]] for index in range(gate.batch if runner.batched else 1)]
    request = request_of(rows, batched=runner.batched)
    times = interleaved({"variant": lambda: runner.infer(request), "plain": lambda: plain.infer(request)})
    return ratio(times["variant"], times["plain"])
