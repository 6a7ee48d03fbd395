"""The step that passes or refuses a model: its answers against its source's, its metrics against the gates.

It makes `golden.npz` for the version, and its facts go into the manifest. An ONNX model runs in onnxruntime, of the
target release's version; a Python model and an ensemble run in the real server.
"""

from __future__ import annotations

from pathlib import Path

from modelwright.errors import located
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.verified import GoldenComparison, Verified
from modelwright.onnx.runtime import load_session, run_session
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.samples import as_tensors, check_tensors
from modelwright.triton.layout import GOLDEN
from modelwright.triton.tensors import Tensors, load_tensors
from modelwright.verification.batches import Infer, check_rows_independent, in_batches
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.gates import check_gates, metrics_from
from modelwright.verification.golden import save_golden
from modelwright.verification.tolerances import tolerances

SERVED_BATCH = 32  # rows a request when nothing smaller limits it


def run(context: StepContext, out: Path) -> Verified:
    """Verify an ONNX model in onnxruntime."""
    spec = context.builder.spec
    with located(f"{spec.name}: verify"):
        session = load_session(context.inputs["model"] / "version" / "model.onnx")

        def infer(inputs: Tensors) -> Tensors:
            return run_session(session, inputs)

        batch = len(next(iter(_samples(context).values()))) if spec.batched else 0
        return verify_samples(context, infer, batch, out, check_rows=batch > 1)


def run_served(context: StepContext, out: Path) -> Verified:
    """Verify a Python model or an ensemble in the real server, in a small repository of its own."""
    from modelwright.steps.trial import trial

    spec = context.builder.spec
    with located(f"{spec.name}: verify"), trial(context, out.parent) as client:

        def infer(inputs: Tensors) -> Tensors:
            return client.infer(spec.name, inputs)

        return verify_samples(context, infer, min(spec.max_batch_size, SERVED_BATCH), out)


def verify_samples(context: StepContext, infer: Infer, batch: int, out: Path, *, check_rows: bool = False) -> Verified:
    """Run the samples, compare, evaluate, hold to the gates; keep `out`/golden.npz. Returns the step's facts."""
    spec = context.builder.spec
    samples = _samples(context)
    actual = in_batches(infer, samples, batch)
    check_tensors(actual, spec.outputs, "its answer")
    if check_rows:
        check_rows_independent(infer, samples, actual)
    expected = _expected(context, samples, batch)
    outputs = actual if expected is None else expected
    allowed = tolerances(spec.gates, outputs)
    # Compared with itself where there is nothing else: that still refuses NaN and answers that change.
    errors = compare_outputs(outputs, actual if expected else in_batches(infer, samples, batch), allowed)
    metrics = _evaluate(context, lambda inputs: in_batches(infer, inputs, batch))
    check_gates(spec.gates, metrics)
    save_golden(out / GOLDEN, samples, outputs, batch)
    return Verified(
        compared_with=ComparedWith.SOURCE if expected else ComparedWith.ITSELF,
        max_abs_error=errors,
        samples=len(next(iter(samples.values()))),
        metrics=metrics,
        golden=GoldenComparison(batch=batch, tolerance=allowed),
    )


def _samples(context: StepContext) -> Tensors:
    return load_tensors(context.inputs["samples"] / "samples.npz")


def _expected(context: StepContext, samples: Tensors, batch: int) -> Tensors | None:
    """What the source answers: kept by the export, or computed by the builder's `reference`."""
    kept = context.inputs["model"] / "expected.npz"
    if kept.is_file():
        return load_tensors(kept)
    reference = context.builder.spec.reference
    if reference is None:
        return None
    where = f"{context.builder.file}: reference {reference}"

    def ask(part: Tensors) -> Tensors:
        return as_tensors(call(context, "reference", reference, part), where)

    # Request by request, as the server is asked: a model may pad the rows of a request alike.
    expected = in_batches(ask, samples, batch) if batch else ask(samples)
    check_tensors(expected, context.builder.spec.outputs, where)
    return expected


def _evaluate(context: StepContext, infer: Infer) -> dict[str, float]:
    entry = context.builder.spec.evaluate
    if entry is None:
        return {}
    return metrics_from(call(context, "evaluate", entry, infer), f"{context.builder.file}: evaluate {entry}")
