"""The step that passes or refuses a model: its answers against its source's, its metrics against the gates.

It makes `golden.npz` for the version, and its facts go into the manifest. An ONNX model runs in onnxruntime, of the
target release's version; a Python model and an ensemble run in the real server. What the server may do to requests is
done here first: they are asked alone and in batches, and at the same time where the server batches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.config.model_config import tensors_of
from modelwright.errors import StepError, located
from modelwright.facts.compared_with import ComparedWith
from modelwright.facts.training import FoldSpread, TrainingRecord
from modelwright.facts.verified import GoldenComparison, Verified
from modelwright.kinds.recipe import TRAINING
from modelwright.project.spec import Tolerance
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.evaluation import MODEL, evaluation_of, onnx_view, rows_a_request, runner_of
from modelwright.steps.samples import as_declared, as_samples, load_samples
from modelwright.triton.arrays import datatype_of, rounded_to
from modelwright.triton.client import Client
from modelwright.triton.layout import GOLDEN
from modelwright.triton.sequences import whole_sequence
from modelwright.triton.tensors import Tensors, load_tensors
from modelwright.verification.batches import check_rows
from modelwright.verification.comparison import check_repeatable, compare_outputs
from modelwright.verification.gates import check_folds, check_gates
from modelwright.verification.golden import kept_count, save_golden
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import columns, requests, unpack
from modelwright.verification.sizes import check_sizes
from modelwright.verification.together import check_requests_together
from modelwright.verification.tolerances import tolerances

SERVED_BATCH = 32  # rows a request when nothing smaller limits it


@dataclass(frozen=True)
class Answered:
    """What a model answered to its golden samples."""

    actual: list[Tensors]
    allowed: Mapping[str, Tolerance]  # how close another answer must be
    facts: Verified


def run(context: StepContext, out: Path) -> Verified:
    """Verify an ONNX model in onnxruntime."""
    spec = context.builder.spec
    with located(f"{spec.name}: verify"):
        view = onnx_view(context, context.inputs["model"] / MODEL)
        runner = runner_of(view)
        samples = load_samples(context, view.tensors.input_types)
        batch = rows_a_request(spec, len(samples))
        answered = verify_samples(context, runner, samples, batch, out)
        if spec.batched:
            check_kept_rows(context, runner, samples, answered, batch)
        return with_notes(answered, check_sizes(runner, samples, view.dims))


def run_served(context: StepContext, out: Path, source: str = "") -> Verified:
    """Verify a Python model or an ensemble in the real server, in a small repository of its own.

    `source` is the model there whose answers it must give.
    """
    from modelwright.steps.trial import trial

    with located(f"{context.builder.name}: verify"), trial(context, out.parent) as client:
        return verify_in(context, client, out, served_runner(context, client, model=source) if source else None)


def verify_in(context: StepContext, client: Client, out: Path, source: SampleRunner | None = None) -> Verified:
    """Verify the model that a trial serves. `source` says what the answers must be."""
    from modelwright.steps.trial import runs_saved

    spec = context.builder.spec
    runner = served_runner(context, client)
    samples = load_samples(context, tensors_of(context.builder).input_types)
    batch = min(spec.max_batch_size, SERVED_BATCH)
    answered = verify_samples(context, runner, samples, batch, out, source)
    if spec.batched and "sequence_batching" not in spec.serving:
        check_kept_rows(context, runner, samples, answered, batch, may_pad=True)
    notes = [check_sizes(runner, samples, _dims(context))]
    batching = [name for name, serving in context.config["served"].items() if _batches(serving)]
    if batching and not check_requests_together(
        runner,
        samples,
        answered.allowed,
        lambda: runs_saved(client, batching),
        ragged=_takes_ragged(spec.serving),
    ):
        notes.append("no requests that were sent at the same time ran together: batching was not tested")
    return with_notes(answered, *notes)


def verify_samples(
    context: StepContext,
    runner: SampleRunner,
    samples: list[Tensors],
    batch: int,
    out: Path,
    source: SampleRunner | None = None,
) -> Answered:
    """Run the samples, compare, evaluate, hold to the gates; keep `out`/golden.npz.

    `source` is another model that says what the answers must be.
    """
    spec = context.builder.spec
    actual = as_declared(runner.ask_all(samples, batch), spec.outputs, "its answer")
    expected = source.ask_all(samples, batch) if source else expected_of(context, samples, batch, actual[0])
    answers = actual if expected is None else expected
    allowed = tolerances(spec.gates, answers[0])
    # Compared with itself where there is nothing else: that still refuses NaN and answers that change.
    errors = (
        compare_outputs(expected, actual, allowed)
        if expected
        else check_repeatable(actual, runner.ask_all(samples, batch), allowed)
    )
    evaluation = evaluation_of(context, runner, batch=batch)
    check_gates(spec.gates, evaluation.metrics)
    folds = checked_folds(context)
    save_golden(out / GOLDEN, samples, answers, batch)
    facts = Verified(
        compared_with=ComparedWith.SOURCE if expected else ComparedWith.ITSELF,
        max_abs_error=errors,
        samples=len(samples),
        metrics=evaluation.metrics,
        confusion=evaluation.confusion,
        folds=folds,
        golden=GoldenComparison(batch=batch, tolerance=allowed),
    )
    return Answered(actual, allowed, facts)


def checked_folds(context: StepContext) -> dict[str, FoldSpread]:
    """The folds that gates ask for. Raises VerifyError where they miss them."""
    gates = context.builder.spec.gates
    if not gates.folds:
        return {}
    record = TrainingRecord.read(context.inputs[TRAINING])
    folds = record.folds if record else {}
    check_folds(gates, folds)
    return {name: FoldSpread.of(folds[name]) for name in gates.folds}


def check_kept_rows(
    context: StepContext,
    runner: SampleRunner,
    samples: list[Tensors],
    answered: Answered,
    batch: int,
    *,
    may_pad: bool = False,
) -> None:
    """Check the rows of the samples that a version keeps: more of them would cost more and show no more."""
    kept, largest = kept_count(samples, batch), context.builder.spec.max_batch_size
    check_rows(runner, samples[:kept], answered.actual[:kept], answered.allowed, batch, largest, may_pad=may_pad)


def served_runner(context: StepContext, client: Client, version: str = "", model: str = "") -> SampleRunner:
    """The model in a trial; or another one there that has the same tensors."""
    spec = context.builder.spec
    types = tensors_of(context.builder).input_types
    name = model or spec.name
    place = whole_sequence(client, name)

    def infer(inputs: Tensors) -> Tensors:
        rows = rounded_to(inputs, types)
        return client.infer(name, rows, version=version, sequence=place)

    return SampleRunner(infer, spec.batched, declared_scalars(context))


def declared_scalars(context: StepContext) -> frozenset[str]:
    return frozenset(output.name for output in context.builder.spec.outputs if not output.shape)


def _batches(serving: Mapping[str, Any]) -> bool:
    return "dynamic_batching" in serving and serving.get("max_batch_size", 0) > 1


def _takes_ragged(serving: Mapping[str, Any]) -> bool:
    return any(entry.get("allow_ragged_batch") for entry in serving.get("input", ()))


def _dims(context: StepContext) -> dict[str, tuple[int | str, ...]]:
    return {tensor.name: tensor.shape for tensor in context.builder.spec.inputs}


def with_notes(answered: Answered, *notes: str) -> Verified:
    return answered.facts.model_copy(update={"notes": tuple(filter(None, notes))})


def expected_of(
    context: StepContext, samples: list[Tensors], batch: int, answer: Tensors, role: str = "model"
) -> list[Tensors] | None:
    """What the source answers: kept by the export, or computed by the builder's `reference`.

    `role` is that of the export. Floats are rounded where the model's own `answer` is of bfloat16.
    """
    kept = context.inputs[role] / "expected.npz"
    if kept.is_file():
        return unpack(load_tensors(kept))
    reference = context.builder.spec.reference
    if reference is None:
        return None
    where = f"{context.builder.file}: reference {reference}"
    # Request by request, as the server is asked: a model may pad the rows of a request alike.
    parts = requests(samples, batch) if batch else [samples]
    answers = []
    for part in parts:
        given = as_samples(call(context, "reference", reference, columns(part)), where)
        if len(given) != len(part):
            raise StepError(f"{where}: {len(given)} answers to {len(part)} samples", "return one for each, in order")
        answers += given
    types = {name: datatype_of(array) for name, array in answer.items()}
    declared = as_declared([rounded_to(given, types) for given in answers], context.builder.spec.outputs, where)
    return [_scalars_as(answer, given) for given in declared]


def _scalars_as(answer: Tensors, given: Tensors) -> Tensors:
    """A scalar may be given as [1], and the other way round."""
    return {
        name: array.reshape(answer[name].shape)
        if name in answer and {array.shape, answer[name].shape} == {(), (1,)}
        else array
        for name, array in given.items()
    }
