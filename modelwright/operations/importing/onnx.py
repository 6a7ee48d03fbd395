"""ONNX files: a builder around one, which builds at once.

The graph is copied with the files of weights that it lists. The tensors are those that onnxruntime says. Whether the
model batches, and which random samples it takes, is tried: the builder is the first that passes what its build will ask
of it. Where none does, the builder is written with the reason, and its samples are left to a person.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from modelwright.config.served import served_view
from modelwright.errors import SpecError, located
from modelwright.onnx.check import check_limits, check_shapes, read_signature
from modelwright.onnx.ids import id_limits
from modelwright.onnx.rows import is_given, other_rows
from modelwright.onnx.runtime import load_session, session_values
from modelwright.onnx.scan import OnnxScanError, scan
from modelwright.onnx.signature import Value
from modelwright.onnx.weights import SAVE_WEIGHTS, check_weights, needed
from modelwright.operations.importing.onnx_samples import DATA, Attempt, LoadedModel, Search
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.project.reader import read_builder
from modelwright.project.spec import FILE
from modelwright.project.writer import as_yaml
from modelwright.text import counted
from modelwright.variants.registry import LOOKUPS

MODEL = "model.onnx"
_MAX_BATCH_SIZE = 8
_LONGEST_SEARCH_S = 90


def recognise(path: Path) -> Seen | None:
    """A whole ONNX file, whether it can be served or not."""
    if not path.is_file():
        return None
    try:
        declared = scan(path)
    except OnnxScanError:
        return None
    tensors = f"{counted(len(declared.inputs), 'input')}, {counted(len(declared.outputs), 'output')}"
    producer = f", of {declared.producer}" if declared.producer.isprintable() and declared.producer else ""
    return Seen("onnx", f"an ONNX file{producer}: opset {declared.opset}; {tensors}", path)


def _write(found: Seen, new: NewBuilder) -> Written:
    """Raises ModelwrightError for a model that Triton cannot serve, or that the release does not load."""
    with located(new.where):
        model, path = _taken(found.path, new)
        limits = id_limits(new.file(MODEL, found.path))
        reason = _why_not_batched(model)
        deadline = time.monotonic() + _LONGEST_SEARCH_S
        attempts = []
        for batched in (False,) if reason else (True, False):
            new.write(FILE, _model_yaml(model, new, found.path, path, batched, reason))
            builder = read_builder(new.folder, f"builders/{new.target.name}/{FILE}", LOOKUPS)
            view = served_view(builder, model.session)
            attempt = Search(model, builder, view, limits, deadline).run()
            attempts.append(attempt)
            if not attempt.reason:
                text = _model_yaml(model, new, found.path, path, batched, reason, attempt.other_outputs)
                new.write(FILE, text)
                return _written(model, attempt, reason)
            reason = reason or attempt.reason
        best = attempts[0]
        new.write(FILE, _model_yaml(model, new, found.path, path, best.batched, reason))
        new.write(DATA, best.generated.text(new.target.name))
        notes = (f"no generated samples ran: {best.reason}",)
        return Written(notes, (f"write your own samples into {DATA}",), builds=False)


def _taken(source: Path, new: NewBuilder) -> tuple[LoadedModel, str]:
    """The graph and its weights, within the limits of the release, and loaded; and what stands at `path`."""
    declared = read_signature(source)
    check_limits(declared, new.release)
    check_weights(needed(declared), source.parent, source.name)
    taken = {FILE, DATA, MODEL} & set(declared.external)
    if taken:
        message = f"{source.name}: its weights are in '{min(taken)}', a name that a builder uses itself"
        raise SpecError(message, f"save the model with weights in another file: {SAVE_WEIGHTS}")
    path = new.take(source, MODEL)
    for name in declared.external:
        new.take(source.parent / name, name)
    if not declared.inputs:
        raise SpecError(f"{source.name}: the graph has no inputs", "a request carries at least one")
    session = load_session(new.file(MODEL, source), quiet=True)
    inputs, outputs = session_values(session)
    found = replace(declared, inputs=inputs, outputs=outputs)
    check_shapes(declared, found, source.name)
    return LoadedModel(new.folder, session, inputs, outputs, found), path


def _why_not_batched(model: LoadedModel) -> str:
    """Why the server cannot put requests together, as far as shapes say; '' where it can."""
    for value in (*model.inputs, *model.outputs):
        if not value.dims:
            return f"'{value.name}' has no dimensions"
        if isinstance(value.dims[0], int) and value.dims[0] >= 0:
            return f"the first dimension of '{value.name}' is {value.dims[0]}"
    for found in other_rows(model.inputs, model.outputs):
        return f"'{found.output}' has '{found.name}' rows, a request '{found.rows}'"
    return ""


def _written(model: LoadedModel, found: Attempt, reason: str) -> Written:
    size = _MAX_BATCH_SIZE if found.batched else 0
    why = "the first dimension of each tensor varies, and rows answer alike alone and together"
    notes = [f"max_batch_size is {size}: {why if found.batched else reason}"]
    if len(model.signature.external) > 0:
        notes.append(f"its weights are in {', '.join(model.signature.external)}")
    if found.other_outputs:
        notes.append(f"outputs are left out of {FILE}, as the file declares other shapes: {found.other_outputs}")
    return Written((*notes, *filter(None, [found.note])), builds=True)


# --- model.yaml ------------------------------------------------------------------------------------------------------


def _model_yaml(
    model: LoadedModel, new: NewBuilder, source: Path, path: str, batched: bool, reason: str, other_outputs: str = ""
) -> str:
    why = "rows in one run of the model" if batched else f"requests have no batch dimension: {reason}"
    outputs = ["outputs:", *(_tensor(value, batched) for value in model.outputs)]
    if other_outputs:
        outputs = ["# No outputs: the file declares other shapes than it answers."]
    lines = [
        *new.head,
        f"description: {as_yaml(f'The model of {source.name}.')}",
        "source:",
        "  kind: onnx",
        f"  path: {as_yaml(path)} # with the files of weights that it lists",
        "# Tensors as clients see them, without the batch dimension. A named dimension varies, and is the same wherever"
        if batched
        else "# Tensors as clients see them, whole. A named dimension varies, and is the same wherever",
        "# it stands; -1 varies, too.",
        "inputs:",
        *(_tensor(value, batched) for value in model.inputs),
        *outputs,
        "samples: data:samples # golden inputs, random for now: replace them by what clients send",
        "serving: # Triton's ModelConfig, field by field: every field of it may stand here",
        f"  max_batch_size: {_MAX_BATCH_SIZE if batched else 0} # {' '.join(why.split())}",
    ]
    if batched:
        lines.append("  # Wait this long for more requests of the same shape, then run them together.")
        lines.append("  dynamic_batching: {max_queue_delay_microseconds: 100}")
    lines.append("  # instance_group: [{count: 2}] # copies that run at the same time")
    return "\n".join([*(line for line in lines if line), ""])


def _tensor(value: Value, batched: bool) -> str:
    shape = ", ".join(_dim(dim) for dim in (value.dims or ())[int(batched) :])
    return f"  - {{name: {as_yaml(value.name)}, dtype: {value.dtype}, shape: [{shape}]}}"


def _dim(dim: int | str) -> str:
    return as_yaml(dim) if isinstance(dim, str) and is_given(dim) else str(dim) if isinstance(dim, int) else "-1"


RECOGNISER = Recogniser(takes="ONNX files", recognise=recognise, write=_write)
