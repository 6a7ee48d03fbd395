"""PyTorch's files: TorchScript and programs of torch.export become builders of their kinds; for a checkpoint, which
holds weights and no graph, a builder of kind torch is started.

Read are headers. The shapes of a TorchScript file are those that it was traced with, or those that it takes when its
first layer's weights are asked; a program has its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from modelwright.errors import SpecError, one_line
from modelwright.onnx.signature import Value
from modelwright.operations.importing.generated_samples import SAMPLES, Generated, Sizes
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.project.spec import FILE
from modelwright.project.writer import as_yaml
from modelwright.steps.torch_trials import answers_of
from modelwright.text import counted, printable
from modelwright.triton.dtypes import BY_NAME
from modelwright.triton.file_types import CHECKPOINT, EXPORTED_PROGRAM, TORCHSCRIPT, file_type
from modelwright.triton.torch_archives import (
    CheckpointHeader,
    ScriptHeader,
    TorchTensor,
    checkpoint_header,
    script_header,
)
from modelwright.triton.torch_programs import Program, read_program

DATA = "data.py"
_CODE = "train.py"
_MAX_BATCH_SIZE = 8
_SIZES = (224, 32, 64, 28, 8, 16, 96, 128, 256, 299, 384, 512)  # of images, usual ones first
_LENGTH = 16
_SHOWN = 6


def recognise(path: Path) -> Seen | None:
    """A file of torch.jit.save, torch.export.save or torch.save. Raises SpecError for a damaged one."""
    found = file_type(path) if path.is_file() else None
    try:
        if found is TORCHSCRIPT:
            script = script_header(path)
            return Seen("torchscript", f"a TorchScript file: {_signature(script)}", path, script)
        if found is EXPORTED_PROGRAM:
            program = read_program(path)
            shapes = ", ".join(f"{item.name} {item.dtype} {list(item.shape)}" for item in program.inputs)
            return Seen("pt2", f"a program of torch.export: {printable(shapes)}", path, program)
        if found is CHECKPOINT:
            held = checkpoint_header(path)
            _check_weights(held)
            return Seen("torch", _weights(held), path, held) if held.weights else None
    except ValueError as error:
        assert found
        what = printable(f"is {found.what} that cannot be read: {one_line(error)}")
        raise SpecError(what, "copy or download it again; or save it again") from None
    return None


def _check_weights(header: CheckpointHeader) -> None:
    """Raise SpecError for a pickle of a whole module, which only its own code can load."""
    if not header.weights and header.classes:
        what = f"is a pickle of a whole module ({header.classes[0]}), which can run any code when it is loaded"
        hint = "save the weights alone, torch.save(module.state_dict(), …); or torch.jit.save, or torch.export.save"
        raise SpecError(printable(what), hint)


def _signature(header: ScriptHeader) -> str:
    arguments = ", ".join(f"{name}: {kind}" for name, kind in header.arguments) or "?"
    return printable(f"forward({arguments}) -> {header.returns or '?'}, {counted(len(header.weights), 'weight')}")


def _weights(header: CheckpointHeader) -> str:
    of = f" of Lightning {header.lightning}" if header.lightning else ""
    first = header.weights[0]
    return printable(
        f"a PyTorch checkpoint{of}: {counted(len(header.weights), 'weight')}, {first.name} {list(first.shape)}"
    )


def _write(seen: Seen, new: NewBuilder) -> Written:
    if isinstance(seen.details, Program):
        return _write_program(seen, seen.details, new)
    if isinstance(seen.details, ScriptHeader):
        path = new.take(seen.path, "model.pt")
        source = ["  kind: torchscript", f"  path: {as_yaml(path)}"]
        return write_script(seen.path, seen.details, new, source)
    return _write_checkpoint(seen, seen.details, new)


# --- TorchScript ------------------------------------------------------------------------------------------------------


def write_script(
    file: Path,
    header: ScriptHeader,
    new: NewBuilder,
    source: Sequence[str],
    labels: str = "",
    classes: int = 0,
    image: bool = False,
) -> Written:
    """Write model.yaml and data.py around a TorchScript file.

    `source` are the lines below `source:`. `labels` is a file with the names of `classes` classes: it goes to the first
    output, where that has as many values. `image`: without weights to ask, the input is taken for a photograph.
    """
    candidates = _candidates(header, image)
    found = answers_of(file, candidates) if candidates else None
    if found is None:
        inputs = [TorchTensor(name, "FP32", (-1,)) for name, _ in header.arguments] or [TorchTensor("x", "FP32", (-1,))]
        outputs: Sequence[TorchTensor] = [TorchTensor("output", "FP32", (-1,))]
        why = "TorchScript says none, and no guess ran"
        written = Written(
            (), (f"types and shapes of inputs and outputs in {FILE}: {why}", f"samples in {DATA}"), False, FILE
        )
    else:
        number, outputs = found
        inputs = list(candidates[number])
        shapes = ", ".join(f"{item.name} {list(item.shape)}" for item in inputs)
        how = "that it was traced with" if header.traced else "that ran, by its first layer's weights"
        written = Written((f"shapes are those {how}: {printable(shapes)}", _RANDOM))
    if classes and classes != math.prod(dim if isinstance(dim, int) else 0 for dim in outputs[0].shape):
        labels = ""
    _write_files(new, source, inputs, outputs, _MAX_BATCH_SIZE, labels)
    return written


_RANDOM = "golden samples are random: replace them by what clients send"


def _candidates(header: ScriptHeader, image: bool) -> list[list[TorchTensor]]:
    """Inputs that forward may take, without the batch dimension."""
    if header.traced:
        whole = all(tensor.shape and tensor.dtype for tensor in header.traced)
        return [[TorchTensor(item.name, item.dtype, item.shape[1:]) for item in header.traced]] if whole else []
    if len(header.arguments) != 1:
        return []
    name = header.arguments[0][0]
    first = next((item for item in header.weights if len(item.shape) > 1), None)
    if first is None:
        return [[TorchTensor(name, "FP32", (3, 224, 224))]] if image else []
    channels = first.shape[1]
    if len(first.shape) == 4:
        return [[TorchTensor(name, "FP32", (channels, size, size))] for size in _SIZES]
    if "emb" in first.name:
        return [[TorchTensor(name, "INT64", (_LENGTH,))]]
    return [[TorchTensor(name, "FP32", (channels,))]] if len(first.shape) == 2 else []


# --- programs ---------------------------------------------------------------------------------------------------------


def _write_program(seen: Seen, program: Program, new: NewBuilder) -> Written:
    path = new.take(seen.path, "model.pt2")
    source = ["  kind: pt2", f"  path: {as_yaml(path)}"]
    notes = []
    if program.risks:
        source.append("  # trusted: true # it runs code when it is loaded: only if you trust whoever made it")
        notes.append(printable(f"it needs source.trusted: true: {program.risks[0]}"))
    tensors = (*program.inputs, *program.outputs)
    rows = {item.shape[0] if item.shape else 1 for item in tensors}
    name = rows.pop() if len(rows) == 1 else None
    if isinstance(name, str):
        most = program.ranges.get(name, (None, None))[1]
        size, cut = min(_MAX_BATCH_SIZE, most or _MAX_BATCH_SIZE), 1
        notes.append(f"max_batch_size is {size}: the first dimension of each tensor varies")
    else:
        size, cut = 0, 0
        notes.append("max_batch_size is 0: the first dimension is not one that varies, and the same, in each tensor")
    inputs, outputs = (
        [TorchTensor(i.name, i.dtype, i.shape[cut:]) for i in side] for side in (program.inputs, program.outputs)
    )
    _write_files(new, source, inputs, outputs, size)
    return Written((*notes, _RANDOM), builds=not program.risks, edit=FILE)


# --- checkpoints ------------------------------------------------------------------------------------------------------


def _write_checkpoint(seen: Seen, header: CheckpointHeader, new: NewBuilder) -> Written:
    """A builder of kind torch, whose code a person completes: weights have no graph."""
    name = new.copy(seen.path, f"weights{seen.path.suffix or '.pt'}")
    shapes = [f"    # {printable(item.name)} {list(item.shape)}" for item in header.weights[:_SHOWN]]
    inside = f'["{header.inside}"]' if header.inside else ""
    prefix = header.weights[0].name.partition(".")[0] + "."
    if header.inside and prefix.isprintable() and all(item.name.startswith(prefix) for item in header.weights):
        inside += f"\n    weights = {{name.removeprefix({prefix!r}): tensor for name, tensor in weights.items()}}"
    new.write(
        _CODE, _TRAIN.replace("WEIGHTS", name).replace("INSIDE", inside).replace("    # SHAPES", "\n".join(shapes))
    )
    source = ["  kind: torch", "  entry: train:load # its code must make the module that the weights belong to"]
    unknown = [TorchTensor("x", "FP32", (-1,))], [TorchTensor("y", "FP32", (-1,))]
    _write_files(new, source, *unknown, _MAX_BATCH_SIZE, files=name)
    notes = ["a checkpoint holds weights and no graph: its module is Python code"]
    if header.classes:
        notes.append(
            printable(f"it is a pickle of more than tensors ({', '.join(header.classes[:3])}): save the weights alone")
        )
    return Written(
        tuple(notes), (f"the module in {_CODE}", f"inputs and outputs in {FILE}", f"samples in {DATA}"), False, _CODE
    )


_TRAIN = '''"""The module that the weights in WEIGHTS belong to."""

from __future__ import annotations

import torch


def load() -> torch.nn.Module:
    """The module in eval mode, which becomes an ONNX graph."""
    weights = torch.load("WEIGHTS", map_location="cpu", weights_only=True)INSIDE
    # SHAPES
    module: torch.nn.Module = ...  # the class of your model, with these weights
    module.load_state_dict(weights)
    return module.eval()
'''


# --- files ------------------------------------------------------------------------------------------------------------


def _write_files(
    new: NewBuilder,
    source: Sequence[str],
    inputs: Sequence[TorchTensor],
    outputs: Sequence[TorchTensor],
    max_batch_size: int,
    labels: str = "",
    files: str = "",
) -> None:
    without = ", without the batch dimension" if max_batch_size else ", whole"
    lines = [
        *new.head,
        f"description: {as_yaml(f'The model of {Path(new.given).name}.')}",
        "source:",
        *source,
        f"# Tensors as clients see them{without}. A named dimension varies, and is the same wherever it stands.",
        "inputs:",
        *map(_tensor, inputs),
        "outputs:",
        *(_tensor(item, labels if item is outputs[0] else "") for item in outputs),
        "samples: data:samples # golden inputs, random for now: replace them by what clients send",
        *([f"files: [{as_yaml(files)}]"] if files else []),
        "serving: # Triton's ModelConfig, field by field: every field of it may stand here",
        f"  max_batch_size: {max_batch_size}",
    ]
    if max_batch_size:
        lines.append("  # Wait this long for more requests of the same shape, then run them together.")
        lines.append("  dynamic_batching: {max_queue_delay_microseconds: 100}")
    new.write(FILE, "\n".join([*lines, ""]))
    values = [Value(item.name, "tensor", BY_NAME[item.dtype or "FP32"].onnx, tuple(item.shape)) for item in inputs]
    new.write(DATA, Generated(values, {}, False, [Sizes(_LENGTH, _LENGTH)] * SAMPLES).text(new.name))


def _tensor(tensor: TorchTensor, labels: str = "") -> str:
    shape = ", ".join(as_yaml(dim) if isinstance(dim, str) else str(dim) for dim in tensor.shape)
    more = f", labels: {as_yaml(labels)}" if labels else ""
    return f"  - {{name: {as_yaml(tensor.name)}, dtype: {tensor.dtype or 'FP32'}, shape: [{shape}]{more}}}"


RECOGNISER = Recogniser("PyTorch's files (TorchScript, torch.export, checkpoints)", recognise, _write)
