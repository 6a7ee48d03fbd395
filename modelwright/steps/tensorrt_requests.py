"""The step that finds out what a plan will be asked: its verification, with the plain model in its place.

Its files, `asked/<digest>.npz`, are one inference each. Where they come out the same, a plan that was built before
still holds, whatever changed in `evaluate`.
"""

from __future__ import annotations

from pathlib import Path

from modelwright.config.served import served_session, served_view
from modelwright.errors import located
from modelwright.facts.made import OnnxSignature
from modelwright.facts.part import Facts, Integer
from modelwright.facts.plan import ASKED, PlanProfile
from modelwright.onnx.check import read_signature
from modelwright.project.spec import ModelSpec
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import MODEL, metrics_of, plain_if_asked, rows_a_request, runner_of
from modelwright.steps.onnx import made
from modelwright.steps.plan_session import RecordingSession, check_types
from modelwright.steps.samples import as_declared, load_samples
from modelwright.variants.profiles import resolved, shaped_inputs
from modelwright.variants.technique import PLAIN, SOURCE
from modelwright.variants.techniques.tensorrt import TensorRtOptions
from modelwright.verification.batches import check_rows
from modelwright.verification.golden import kept_count
from modelwright.verification.sizes import check_sizes
from modelwright.verification.tolerances import UNBOUNDED


class Rehearsed(Facts):
    """How much a plan will be asked."""

    requests: Integer


def run(context: StepContext, out: Path) -> Rehearsed:
    """Ask the plain model all that `verify_plan` will ask the plan, and keep it."""
    spec = context.builder.spec
    with located(f"{spec.name}: tensorrt: what the plan will be asked"):
        profiles = profiles_of(context, signature_of(context))
        # The plain model: its inputs and outputs are the same, and onnxruntime runs it whatever the graph computes in.
        session = RecordingSession(
            served_session(context.builder, context.inputs[PLAIN] / MODEL), profiles, out / ASKED
        )
        view = served_view(context.builder, session)
        runner, samples = runner_of(view), load_samples(context, view.tensors.input_types)
        batch = batch_of(spec, len(samples))
        actual = as_declared(runner.ask_all(samples, batch), spec.outputs, "its answer")
        if spec.evaluate:
            metrics_of(context, runner, plain_if_asked(context), batch=batch or None)
        if spec.batched:
            kept = kept_count(samples, batch)
            allowed = dict.fromkeys(actual[0], UNBOUNDED)
            check_rows(runner, samples[:kept], actual[:kept], allowed, batch, spec.max_batch_size)
        check_sizes(runner, samples, view.dims)
    return Rehearsed(requests=len(list((out / ASKED).iterdir())))


def batch_of(spec: ModelSpec, samples: int) -> int:
    """Rows a request: as many as the server puts together at most, since no profile takes more."""
    rows = rows_a_request(spec, samples)
    return min(rows, spec.max_batch_size) if rows else 0


def signature_of(context: StepContext) -> OnnxSignature:
    """What the graph declares, with the shapes that onnxruntime infers of the plain model: not all that TensorRT runs
    has kernels on the CPU. Raises StepError for a data type that a plan cannot be asked with."""
    graph, plain = (context.inputs[role] / MODEL for role in (SOURCE, PLAIN))
    signature = made(read_signature(graph), plain, context).signature
    assert signature is not None
    check_types(signature)
    return signature


def profiles_of(context: StepContext, signature: OnnxSignature) -> tuple[PlanProfile, ...]:
    """The profiles of the plans that are built of the graph."""
    builder = context.builder
    inputs = shaped_inputs(builder.spec, signature.inputs)
    assert inputs is not None
    where = f"{builder.file}: variant {builder.name}: tensorrt.profiles"
    return resolved(context.options(TensorRtOptions).profiles, inputs, builder.spec, where)
