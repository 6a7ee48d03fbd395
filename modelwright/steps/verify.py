"""The step that lets a model through, or not: its answers against its source's, its metrics against the gates.

It makes `golden.npz` for the version, and its facts go into the manifest. An ONNX model runs in onnxruntime, of the
target release's version; a Python model and an ensemble run in the real server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.errors import StepError, VerifyError, located
from modelwright.onnx import runtime
from modelwright.project.spec import ModelSpec
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.samples import as_tensors, check_tensors
from modelwright.triton.layout import GOLDEN
from modelwright.triton.tensors import Tensors, load_tensors
from modelwright.verification import golden
from modelwright.verification.golden import Infer

SERVED_BATCH = 32  # rows a request when nothing smaller limits it


def run(context: StepContext, out: Path) -> dict[str, Any]:
    """Verify an ONNX model in onnxruntime."""
    spec = context.builder.spec
    with located(f"{spec.name}: verify"):
        session = runtime.session(context.inputs["model"] / "version" / "model.onnx")

        def infer(inputs: Tensors) -> Tensors:
            return runtime.run_session(session, inputs)

        batch = len(next(iter(_samples(context).values()))) if spec.batched else 0
        return verify_samples(context, infer, batch, out, check_rows=batch > 1)


def run_served(context: StepContext, out: Path) -> dict[str, Any]:
    """Verify a Python model or an ensemble in the real server, in a small repository of its own."""
    from modelwright.steps.trial import trial

    spec = context.builder.spec
    with located(f"{spec.name}: verify"), trial(context, out.parent) as client:

        def infer(inputs: Tensors) -> Tensors:
            return client.infer(spec.name, inputs)

        return verify_samples(context, infer, min(spec.max_batch_size, SERVED_BATCH), out)


def verify_samples(
    context: StepContext, infer: Infer, batch: int, out: Path, *, check_rows: bool = False
) -> dict[str, Any]:
    """Run the samples, compare, evaluate, hold to the gates; keep `out`/golden.npz. Returns the step's facts."""
    spec = context.builder.spec
    samples = _samples(context)
    actual = golden.in_batches(infer, samples, batch)
    check_tensors(actual, spec.outputs, "its answer")
    if check_rows:
        _check_rows_stand_alone(samples, actual, infer)
    expected = _expected(context, samples, batch)
    outputs = actual if expected is None else expected
    allowed = golden.tolerances(spec, outputs)
    # Against itself where there is nothing else: that still refuses NaN, and a model that answers as it likes.
    errors = golden.compare_outputs(outputs, actual if expected else golden.in_batches(infer, samples, batch), allowed)
    metrics = _evaluate(context, lambda inputs: golden.in_batches(infer, inputs, batch))
    _check_gates(spec, metrics)
    golden.save_golden(out / GOLDEN, samples, outputs, batch)
    return {
        "max_abs_error": errors,
        "compared_with": "its source" if expected else "itself",
        "samples": len(next(iter(samples.values()))),
        "metrics": metrics,
        "golden": {"batch": batch, "tolerance": golden.as_json(allowed)},
    }


def _check_rows_stand_alone(samples: Tensors, together: Tensors, infer: Infer) -> None:
    """A sample's answer must not depend on its neighbours: the server batches requests of different clients."""
    alone = infer({name: array[:1] for name, array in samples.items()})
    first = {name: array[:1] for name, array in together.items()}
    try:
        golden.compare_outputs(first, alone, golden.default_tolerances(first))
    except VerifyError as error:
        raise VerifyError(
            f"a sample alone in its batch gets another answer than among others: {error.message}",
            "compute per row in the model, or set serving.max_batch_size: 0",
        ) from None


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
    expected = golden.in_batches(ask, samples, batch) if batch else ask(samples)
    check_tensors(expected, context.builder.spec.outputs, where)
    return expected


def _evaluate(context: StepContext, infer: Infer) -> dict[str, float]:
    entry = context.builder.spec.evaluate
    if entry is None:
        return {}
    metrics = call(context, "evaluate", entry, infer)
    if not isinstance(metrics, Mapping) or not metrics:
        raise StepError(f"{context.builder.file}: evaluate {entry}: expected {{metric: number}}, got {metrics!r}")
    try:
        numbers = {str(name): float(value) for name, value in metrics.items()}
    except (TypeError, ValueError):
        numbers = {"": math.nan}
    if not all(map(math.isfinite, numbers.values())):
        raise StepError(f"{context.builder.file}: evaluate {entry}: expected numbers, got {dict(metrics)!r}")
    return numbers


def _check_gates(spec: ModelSpec, metrics: Mapping[str, float]) -> None:
    for name, gate in spec.gates.metrics.items():
        if name not in metrics:
            raise VerifyError(f"gates.{name}: evaluate returned no such metric, only {sorted(metrics)}")
        value = metrics[name]
        if gate.min is not None and value < gate.min:
            raise VerifyError(f"{name} is {value:.6g}, the gate asks for at least {gate.min:g}", _GATE_HINT)
        if gate.max is not None and value > gate.max:
            raise VerifyError(f"{name} is {value:.6g}, the gate asks for at most {gate.max:g}", _GATE_HINT)


_GATE_HINT = "nothing was published; improve the model, or change gates in its model.yaml and say why"
