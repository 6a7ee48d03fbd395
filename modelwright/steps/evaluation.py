"""Measuring a model with the builder's `evaluate`: a model, a candidate of a technique, the plain model.

runner = onnx_runner(context, file)               # an ONNX file, as it is served
metrics = metrics_of(context, runner, plain)      # what `evaluate` says of it
missed = missed_gates(gates, metrics, baseline_metrics(context))
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelwright.config.served import EMULATED, ServedView, served_session, served_view
from modelwright.errors import located
from modelwright.facts.part import Facts, Number
from modelwright.project.spec import ModelSpec
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call, function_of
from modelwright.steps.samples import as_samples
from modelwright.triton.arrays import rounded_to
from modelwright.triton.tensors import Tensors
from modelwright.variants.technique import BASELINE, PLAIN
from modelwright.verification.confusion import Confusion, confusion_from
from modelwright.verification.gates import metrics_from, missed_gates
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import Column, columns

MODEL = "version/model.onnx"  # in the folder of a step that makes a graph
_METRICS = "metrics.json"
_SOURCE = "source"  # the parameter of `evaluate` that gets the plain model


class Measured(Facts):
    """What `evaluate` says of the plain model."""

    metrics: dict[str, Number]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` returned."""

    metrics: dict[str, float]
    confusion: Confusion = ()


def measure_plain(context: StepContext, out: Path) -> Measured:
    """The step `baseline`: the metrics of the plain model, for the gates of its variants."""
    runner = onnx_runner(context, context.inputs["model"] / MODEL)
    with located(f"{context.builder.spec.name}: the plain model"):
        metrics = metrics_of(context, runner, runner)
    (out / _METRICS).write_text(json.dumps(metrics, sort_keys=True))
    return Measured(metrics=metrics)


def baseline_metrics(context: StepContext) -> dict[str, float]:
    """The plain model's metrics; none where the builder has no `evaluate`."""
    folder = context.inputs.get(BASELINE)
    if folder is None:
        return {}
    metrics: dict[str, float] = json.loads((folder / _METRICS).read_text())
    return metrics


def check_gates_known(context: StepContext) -> None:
    """Raise VerifyError for a gate of a metric that `evaluate` does not return: before hours of training, not after."""
    plain = baseline_metrics(context)
    missed_gates(context.builder.spec.gates, plain, plain)


def plain_runner(context: StepContext) -> SampleRunner:
    """The plain model, in a step of a variant that evaluates."""
    return onnx_runner(context, context.inputs[PLAIN] / MODEL)


def plain_if_asked(context: StepContext) -> SampleRunner | None:
    """The plain model where the builder's `evaluate` has a parameter for it; else None, and it is not loaded."""
    entry = context.config.get("evaluate")
    return plain_runner(context) if entry and _asks_for_plain(context, entry) else None


def _asks_for_plain(context: StepContext, entry: str) -> bool:
    return _SOURCE in inspect.signature(function_of(context, "evaluate", entry)).parameters


def onnx_view(context: StepContext, file: Path) -> ServedView:
    """An ONNX file as this model is served. Raises ConfigError where the server would refuse it."""
    return served_view(context.builder, served_session(context.builder, file))


def runnable(folder: Path) -> Path:
    """What a step made, as onnxruntime runs it here."""
    emulated = folder / EMULATED
    return emulated if emulated.is_file() else folder / MODEL


def onnx_runner(context: StepContext, file: Path) -> SampleRunner:
    return runner_of(onnx_view(context, file))


def runner_of(view: ServedView) -> SampleRunner:
    types = view.tensors.input_types

    def infer(inputs: Tensors) -> Tensors:
        return view.run(rounded_to(inputs, types))

    return SampleRunner(infer, view.batched, view.scalars)


def rows_a_request(spec: ModelSpec, samples: int) -> int:
    """How many samples a request of a model in onnxruntime has; 0 for requests without a batch dimension.

    A request of a sequence is one row: the batcher puts those of several sequences together.
    """
    alone = spec.max_batch_size == 1 or "sequence_batching" in spec.serving
    return 0 if not spec.batched else 1 if alone else samples


def metrics_of(
    context: StepContext, runner: SampleRunner, plain: SampleRunner | None = None, batch: int | None = None
) -> dict[str, float]:
    """The metrics of a model: see `evaluation_of`."""
    return evaluation_of(context, runner, plain, batch).metrics


def evaluation_of(
    context: StepContext, runner: SampleRunner, plain: SampleRunner | None = None, batch: int | None = None
) -> Evaluation:
    """What the builder's `evaluate` says of a model; nothing where it has none.

    A function with a parameter `source` gets the plain model's `infer` there, to compare with. `batch`: rows a request,
    by default all that one call of `infer` gives. Raises StepError.
    """
    entry = context.config.get("evaluate")
    if entry is None:
        return Evaluation({})
    where = f"{context.builder.file}: evaluate {entry}"

    def infer_of(model: SampleRunner):  # type: ignore[no-untyped-def]
        def infer(inputs: Mapping[str, Column]) -> dict[str, Column]:
            with located(f"{where}: infer"):
                samples = as_samples(inputs, f"{where}: infer")
                rows = rows_a_request(context.builder.spec, len(samples)) if batch is None else batch
                return columns(model.ask_all(samples, rows))

        return infer

    others = {_SOURCE: infer_of(plain or runner)} if _asks_for_plain(context, entry) else {}
    returned = call(context, "evaluate", entry, infer_of(runner), **others)
    return Evaluation(metrics_from(returned, where), confusion_from(returned, where))
