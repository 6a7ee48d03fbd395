"""source.kind pt2: a program of torch.export → ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelwright.errors import StepError, located
from modelwright.facts.made import Made
from modelwright.kinds.pt2 import Pt2Source
from modelwright.project.spec import ModelSpec, TensorSpec
from modelwright.steps.context import StepContext
from modelwright.steps.files import source_path
from modelwright.steps.onnx import export_module
from modelwright.steps.torch_files import load_exported_program, module_of_program
from modelwright.triton.torch_archives import TorchTensor
from modelwright.triton.torch_programs import Program


def to_onnx(context: StepContext, out: Path) -> Made:
    """Export the program by torch's dynamo exporter, once its sizes vary where model.yaml's do."""
    import torch

    source = context.source(Pt2Source)
    torch.set_num_threads(source.threads)
    where = f"{context.builder.file}: source.path"
    loaded, program = load_exported_program(
        source_path(context, "source.path", source.path), where, trusted=source.trusted
    )
    with located(where):
        check_sizes(program, context.builder.spec)
    return export_module(context, module_of_program(loaded, program), out)


def check_sizes(program: Program, spec: ModelSpec) -> None:
    """Hold the program's inputs against model.yaml's. Raises StepError, and says how to export it otherwise."""
    if program.training:
        hint = "call module.eval() before torch.export.export"
        raise StepError(f"the program was exported in training mode: {program.training} is as in training", hint)
    for tensor, own in zip(spec.inputs, _in_order(program.inputs, spec.inputs), strict=True):
        if tensor.dtype != own.dtype:
            types = f"{own.dtype or 'of another type'} in the program, {tensor.dtype} in model.yaml"
            raise StepError(f"input '{tensor.name}' is {types}", "correct model.yaml")
        declared = ("batch", *tensor.shape) if spec.batched else tensor.shape
        if len(declared) != len(own.shape):
            shapes = f"{list(own.shape)} in the program, {list(declared)} by model.yaml"
            hint = "shapes leave out the batch dimension where max_batch_size is above 0, and have it where that is 0"
            raise StepError(f"input '{tensor.name}' has shape {shapes}", hint)
        for axis, (wanted, size) in enumerate(zip(declared, own.shape, strict=True)):
            if isinstance(size, int):
                _check_fixed(tensor.name, axis, wanted, size, spec)
            elif spec.batched and axis == 0:
                _check_most(tensor.name, program.ranges.get(size, (None, None))[1], spec)


def _in_order(own: Sequence[TorchTensor], declared: Sequence[TensorSpec]) -> list[TorchTensor]:
    """The program's inputs in model.yaml's order: by name where it has all the names, else as they stand."""
    names = [tensor.name for tensor in declared]
    if len(own) != len(declared):
        has = f"the program has the inputs {[tensor.name for tensor in own]}, model.yaml {names}"
        raise StepError(has, "declare each input")
    by_name = {tensor.name: tensor for tensor in own}
    return [by_name[name] for name in names] if set(names) == set(by_name) else list(own)


def _check_fixed(name: str, axis: int, wanted: int | str, size: int, spec: ModelSpec) -> None:
    """A dimension that the program has as a number, or as -1 where it is computed from others."""
    if size in (-1, wanted):
        return
    is_batch = spec.batched and axis == 0
    what = f"input '{name}': its {'batch dimension' if is_batch else f'dimension {axis - spec.batched}'}"
    if isinstance(wanted, int) and wanted != -1:
        raise StepError(f"{what} is {size} in the program, {wanted} in model.yaml", "correct model.yaml")
    dims = f"{{'{name}': {{{axis}: Dim.DYNAMIC}}}}"
    otherwise = "set max_batch_size: 0 and write whole shapes" if is_batch else f"declare it as {size}"
    why = f"max_batch_size is {spec.max_batch_size}" if is_batch else "it varies in model.yaml"
    raise StepError(
        f"{what} is fixed at {size} in the program, {why}",
        f"export it so: torch.export.export(module, arguments, dynamic_shapes={dims}); or {otherwise}",
    )


def _check_most(name: str, most: int | None, spec: ModelSpec) -> None:
    if most is not None and most < spec.max_batch_size:
        what = f"input '{name}': its batch dimension is at most {most} in the program"
        hint = f"set max_batch_size: {most}, or export it with a larger Dim"
        raise StepError(f"{what}, max_batch_size is {spec.max_batch_size}", hint)
