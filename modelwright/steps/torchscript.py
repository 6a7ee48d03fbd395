"""source.kind torchscript: the file is exported to ONNX, or published as it is for Triton's pytorch backend."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from modelwright.config.model_config import tensors_of
from modelwright.errors import StepError, located
from modelwright.facts.made import Made
from modelwright.facts.verified import Verified
from modelwright.kinds.torchscript import TorchScriptSource
from modelwright.steps.context import StepContext
from modelwright.steps.evaluation import rows_a_request
from modelwright.steps.files import source_path
from modelwright.steps.modules import module_runner
from modelwright.steps.onnx import export_module
from modelwright.steps.samples import load_samples
from modelwright.steps.torch_files import load_torchscript
from modelwright.steps.verify import check_kept_rows, verify_samples, with_notes
from modelwright.verification.sizes import check_sizes

_MODEL = "version/model.pt"
_NOT_RUN = "not run here: the local server has no pytorch backend; what PyTorch answered is in golden.npz"
_TENSORS = ("Tensor", "Optional[Tensor]")
_AS_ONNX = "leave serve_as out: the ONNX export takes it"


def to_onnx(context: StepContext, out: Path) -> Made:
    """Export the module by torch's TorchScript exporter."""
    return export_module(context, _module(context), out, "torchscript")


def as_it_is(context: StepContext, out: Path) -> Made:
    """Keep the file as `version/model.pt`, once forward is one that the pytorch backend can call."""
    source = context.source(TorchScriptSource)
    module = _module(context)
    with located(f"{context.builder.file}: source.path"):
        _check_call(context, module)
    (out / "version").mkdir()
    shutil.copyfile(source_path(context, "source.path", source.path), out / _MODEL)
    return Made(details={"forward": str(module.forward.schema)})


def verify(context: StepContext, out: Path) -> Verified:
    """Verify the published file in PyTorch: its own answers, in batches and alone, are the golden samples."""
    import torch

    spec = context.builder.spec
    torch.set_num_threads(context.config["threads"])
    with located(f"{spec.name}: verify"):
        runner = module_runner(context, load_torchscript(context.inputs["model"] / _MODEL, "model.pt"))
        samples = load_samples(context, tensors_of(context.builder).input_types)
        batch = rows_a_request(spec, len(samples))
        answered = verify_samples(context, runner, samples, batch, out)
        if spec.batched:
            check_kept_rows(context, runner, samples, answered, batch)
        dims = {tensor.name: tensor.shape for tensor in spec.inputs}
        return with_notes(answered, _NOT_RUN, check_sizes(runner, samples, dims))


def _module(context: StepContext) -> Any:
    import torch

    source = context.source(TorchScriptSource)
    torch.set_num_threads(source.threads)
    where = f"{context.builder.file}: source.path"
    return load_torchscript(source_path(context, "source.path", source.path), where)


def _check_call(context: StepContext, module: Any) -> None:
    """Raise StepError where the backend would call forward otherwise than PyTorch does here, or not at all."""
    schema = module.forward.schema
    arguments = schema.arguments[1:]
    names, known = [tensor.name for tensor in context.builder.spec.inputs], [item.name for item in arguments]
    first = known[: len(names)]
    by_name = set(names) <= set(known)
    if len(names) > len(known) or (by_name and set(names) != set(first)):
        hint = f"name the first arguments of forward, or use {', '.join(f'INPUT__{i}' for i in range(len(names)))}"
        raise StepError(f"inputs {names}: forward takes {known}", hint)
    if open_ := [item.name for item in arguments[len(names) :] if not item.has_default_value()]:
        raise StepError(f"forward also needs {open_}, and model.yaml has the inputs {names}", "declare all of them")
    if other := [item for item in arguments[: len(names)] if str(item.type) not in _TENSORS]:
        what = f"forward takes '{other[0].name}' as {other[0].type}, the pytorch backend passes tensors"
        raise StepError(what, _AS_ONNX)
    result = str(schema.returns[0].type) if schema.returns else "None"
    if result != "Tensor" and not result.startswith(("Tuple[", "(")):
        raise StepError(f"forward returns {result}, the pytorch backend takes a tensor or a tuple of them", _AS_ONNX)
