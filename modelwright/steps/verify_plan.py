"""The step that passes or refuses a version with TensorRT plans, by what they answered where they were built."""

from __future__ import annotations

import tempfile
from pathlib import Path

from modelwright.config.served import served_view
from modelwright.errors import located
from modelwright.facts.plan import ANSWERS
from modelwright.facts.verified import Verified
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import runner_of
from modelwright.steps.plan_session import AnsweringSession
from modelwright.steps.samples import load_samples
from modelwright.steps.tensorrt_requests import batch_of
from modelwright.steps.verify import check_kept_rows, with_notes
from modelwright.steps.verify_variant import hold
from modelwright.verification.sizes import check_sizes


def run(context: StepContext, out: Path) -> Verified:
    """Verify each plan of the version. Metrics and golden samples are those of the first; errors the largest of all."""
    name, folder = context.builder.spec.name, context.inputs["model"]
    first, *others = sorted(path.name for path in (folder / ANSWERS).iterdir())
    with located(f"{name}: verify (plan for {first})"):
        verified = _verify(context, first, out)
    largest = dict(verified.max_abs_error)
    for capability in others:
        with located(f"{name}: verify (plan for {capability})"), tempfile.TemporaryDirectory() as unused:
            found = _verify(context, capability, Path(unused))
        largest = {output: max(error, found.max_abs_error[output]) for output, error in largest.items()}
    # The CPU here computed none of the answers.
    return verified.model_copy(update={"max_abs_error": largest, "instruction_set": ""})


def _verify(context: StepContext, capability: str, out: Path) -> Verified:
    spec = context.builder.spec
    session = AnsweringSession(context.inputs["model"], capability)
    view = served_view(context.builder, session)
    runner, samples = runner_of(view), load_samples(context, view.tensors.input_types)
    batch = batch_of(spec, len(samples))
    answered = hold(context, runner, samples, batch, out, batch or None)
    if spec.batched:
        check_kept_rows(context, runner, samples, answered, batch)
    return with_notes(answered, *answered.facts.notes, check_sizes(runner, samples, view.dims))
