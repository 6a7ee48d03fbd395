"""What the techniques on a torch module share: calling it, measuring it, and fine-tuning it by the builder's entry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.errors import StepError
from modelwright.steps.channels import Forward
from modelwright.steps.context import StepContext
from modelwright.steps.entry import call
from modelwright.steps.export import example_of, onnx_from_torch, run_torch
from modelwright.steps.samples import load_samples
from modelwright.triton.arrays import rounded_to
from modelwright.triton.tensors import Tensors
from modelwright.verification.runner import SampleRunner
from modelwright.verification.samples import of_equal_sizes, stacked

if TYPE_CHECKING:
    from torch import nn


def place_of(context: StepContext) -> str:
    """`builders/digits/model.yaml: variant digits_pruned: prune`, for messages."""
    return f"{context.builder.file}: variant {context.builder.name}: {context.step}"


def prepare_torch(threads: int) -> None:
    """The same numbers on every run."""
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def sample_arrays(context: StepContext) -> Tensors:
    """The golden samples of the most common size, (N, *shape) each."""
    samples = load_samples(context, {})
    return stacked([samples[index] for index in max(of_equal_sizes(samples), key=len)])


def forward_of(context: StepContext, samples: Tensors) -> Forward:
    """Runs a module on one golden sample: the outputs in model.yaml's order, with their gradients."""
    spec = context.builder.spec

    def forward(module: nn.Module) -> Any:
        return example_of(module, samples, spec.inputs, spec.outputs, batched=spec.batched)

    return forward


def module_runner(context: StepContext, module: nn.Module) -> SampleRunner:
    """The module as `evaluate` asks it: answers are the module's own, in eager mode."""
    spec = context.builder.spec
    types = {tensor.name: tensor.dtype for tensor in spec.inputs}
    scalars = {tensor.name for tensor in spec.inputs if not tensor.shape}

    def infer(inputs: Tensors) -> Tensors:
        given = {name: array[..., 0] if name in scalars else array for name, array in inputs.items()}
        rows = rounded_to(given, types)
        if not spec.batched:
            rows = {name: array[None] for name, array in rows.items()}
        answers = run_torch(module, rows, spec.inputs, spec.outputs, batched=spec.batched)
        return answers if spec.batched else {name: array[0] for name, array in answers.items()}

    return SampleRunner(infer, spec.batched, frozenset(tensor.name for tensor in spec.outputs if not tensor.shape))


def export_to(context: StepContext, module: nn.Module, samples: Tensors, file: Path) -> None:
    """Export a candidate, as the step after the techniques on the module does."""
    spec = context.builder.spec
    onnx_from_torch(
        module,
        samples,
        spec.inputs,
        spec.outputs,
        file,
        context.target,
        batched=spec.batched,
        exporter=getattr(spec.source, "exporter", "dynamo"),
    )


def finetuned(context: StepContext, entry: str, module: nn.Module, params: Mapping[str, Any]) -> nn.Module:
    """What the builder's entry makes of a module, in eval mode. Raises StepError where it is no trained module."""
    where = f"{context.builder.file}: {_field(context)} {entry}"
    tuned = module_from(where, call(context, _field(context), entry, module, **params))
    check_finite(where, tuned)
    tuned.eval()
    return tuned


def module_from(where: str, returned: Any) -> nn.Module:
    """Raises StepError where an entry returned something else."""
    from torch import nn

    if not isinstance(returned, nn.Module):
        hint = "end with `return module`: what it changed in place is not looked at"
        raise StepError(f"{where}: expected an nn.Module, got {type(returned).__name__}", hint)
    return returned


def check_finite(where: str, module: nn.Module) -> None:
    import torch

    for name, parameter in module.named_parameters():
        if not torch.isfinite(parameter).all():
            hint = "the training diverged: lower the learning rate, or look at what it learns from"
            raise StepError(f"{where}: the weight '{name}' holds NaN or infinity", hint)


def _field(context: StepContext) -> str:
    return f"variant {context.builder.name}: {context.step}.entry"
