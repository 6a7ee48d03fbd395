"""MW6xx: what an ONNX file declares, against its config and the target release.

The rules are those of onnxruntime_backend (`src/onnxruntime.cc`) and of onnxruntime's own loader. Weights are not read.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from modelwright.lint.completion import cannot_batch, plain_dims
from modelwright.lint.rule import Example, Found, Onnx, Severity, rule
from modelwright.lint.view import ORT_SUFFIX, ConfigView, seen
from modelwright.onnx.rows import other_rows
from modelwright.onnx.signature import ExternalTensor, Signature, Value, element_type
from modelwright.suggest import did_you_mean
from modelwright.triton.dtypes import BY_ONNX
from modelwright.triton.model_config_pb2 import data_type_name

_ONNX = "onnxruntime"
_MAX_ML_OPSET = 5  # onnx.helper.VERSION_TABLE: 4 up to ONNX 1.15, 5 from 1.16 on
# Since this version weights must be in the model's folder, links resolved; before, anywhere. Seen with 1.20.1, 1.23.2,
# 1.24.4, 1.27.0 and 1.28.0. All of them accept hard links.
_INSIDE_SINCE = (1, 24)


@rule(
    "MW601",
    "not a whole ONNX file",
    Severity.ERROR,
    why="onnxruntime refuses a file that ends early or is not ONNX: an interrupted copy, a Git LFS pointer, a web "
    "page.",
    fix="Copy or export it again, and compare its SHA-256.",
    example=Example("", "", base=_ONNX, fault_files={"1/model.onnx": Onnx(truncated=True)}),
)
def not_onnx(view: ConfigView) -> Iterator[Found]:
    for number, found in view.scans.items():
        if isinstance(found, Signature):
            continue
        is_ = seen(view.onnx_file(number))
        if is_:
            yield view.at(view.file_of(number), f"it is {is_.what}", fix=f"{is_.fix}.")
        else:
            named = view.onnx_file(number).suffix.lower() == ORT_SUFFIX
            fix = "Give it another name, such as model.onnx." if named else ""
            yield view.at(view.file_of(number), str(found), fix=fix)


@rule(
    "MW602",
    "IR version too new for the release",
    Severity.ERROR,
    why="Each Triton release has one onnxruntime, which loads files up to a highest IR version: 'Unsupported model IR "
    "version' is the most common error when a model loads.",
    fix="Export with an older onnx, or set ir_version before saving, or choose a later release.",
    example=Example("", "", base=_ONNX, fault_files={"1/model.onnx": Onnx(ir=99)}),
)
def ir_too_new(view: ConfigView) -> Iterator[Found]:
    target = view.options.target
    for number, scan in view.onnx.items():
        if scan.ir_version is None:
            yield view.at(view.file_of(number), "the file has no IR version")
        elif scan.ir_version > target.max_ir:
            limit = f"onnxruntime {target.onnxruntime} of Triton {target.name} loads up to {target.max_ir}"
            yield view.at(view.file_of(number), f"IR version {scan.ir_version}; {limit}")


@rule(
    "MW603",
    "opset too new for the release",
    Severity.ERROR,
    why="An ONNX file names the opsets that it uses. Each Triton release has one onnxruntime, which loads the ai.onnx "
    "domain up to a highest opset, and ai.onnx.ml up to 5.",
    fix="Export with a lower opset, or choose a later release.",
    example=Example("", "", base=_ONNX, fault_files={"1/model.onnx": Onnx(opset=999)}),
)
def opset_too_new(view: ConfigView) -> Iterator[Found]:
    target = view.options.target
    for number, scan in view.onnx.items():
        if not scan.opsets:
            yield view.at(view.file_of(number), "the file has no opset")
        for domain, opset in sorted(scan.opsets.items()):
            most = target.max_opset if domain in ("", "ai.onnx") else _MAX_ML_OPSET if domain == "ai.onnx.ml" else opset
            if not 1 <= opset <= most:
                limit = f"onnxruntime {target.onnxruntime} of Triton {target.name} loads up to {most}"
                yield view.at(view.file_of(number), f"opset {opset} of {domain or 'ai.onnx'}; {limit}")


@rule(
    "MW604",
    "inputs or outputs differ from the file's",
    Severity.ERROR,
    why="The config must list every input of the file that has no default value, and may list only inputs and outputs "
    "that the file has. The backend counts: the inputs that are not optional, the controls, the states and the entries "
    "of batch_input must be as many as the file's inputs.",
    fix="Use the file's names.",
    example=Example(
        'input [ { name: "z", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        base=_ONNX,
    ),
)
def other_tensors(view: ConfigView) -> Iterator[Found]:
    for number, scan in view.onnx.items():
        config, file = view.completed(scan), view.file_of(number)
        known = {"input": {value.name for value in (*scan.inputs, *scan.overridable)}}
        known["output"] = {value.name for value in scan.outputs}
        for side, names in known.items():
            for index, tensor in enumerate(getattr(config, side)):
                if tensor.name not in names:
                    fix = did_you_mean(tensor.name, names)
                    yield view.found(f"{file} has no {side} '{tensor.name}'", side, index, fix=fix)
        fed = list(fed_inputs(config))
        # The backend compares numbers. An input or a control that the file lacks is an error of its own.
        named = {tensor.name for tensor in config.input} | {name for name, _, _ in controls(config)}
        if len(fed) != len(scan.inputs) and named <= known["input"]:
            count = f"{file} has {len(scan.inputs)} inputs, the config {len(fed)}"
            odd, fix = _odd(config, fed, scan)
            yield view.found(f"{count}: {odd}", *_place(config), fix=fix)


def controls(config: Any) -> Iterator[tuple[str, int, Any]]:
    """(tensor, index of its control_input, control) of each control that the sequence batcher sends."""
    for index, entry in enumerate(config.sequence_batching.control_input):
        for control in entry.control:
            yield entry.name, index, control


def fed_inputs(config: Any) -> Iterator[str]:
    """Names of the inputs that the backend counts: an entry of batch_input is one, whatever names it has."""
    yield from (tensor.name for tensor in config.input if not tensor.optional)
    yield from (name for name, _, _ in controls(config))
    yield from (state.input_name for state in config.sequence_batching.state)
    yield from (next(iter(entry.target_name), "") for entry in config.batch_input)


def _place(config: Any) -> tuple[str, ...]:
    """Where the config says its inputs."""
    for field in ("input", "batch_input", "sequence_batching"):
        if config.HasField(field) if field == "sequence_batching" else len(getattr(config, field)):
            return (field,)
    return ()


def _odd(config: Any, fed: list[str], scan: Signature) -> tuple[str, str]:
    """Which inputs make the number differ, and what to do; '' is the rule's own fix."""
    required = {value.name for value in scan.inputs}
    missing, twice = sorted(required - set(fed)), sorted({name for name in fed if fed.count(name) > 1})
    unknown = sorted(set(fed) - required - {value.name for value in scan.overridable})
    more = [name for entry in config.batch_input for name in entry.target_name[1:]]
    if missing and missing[0] in more:
        return (
            f"a batch_input counts as one, and '{missing[0]}' is its second target_name",
            "Give it its own batch_input.",
        )
    if missing and any(entry.name == missing[0] for entry in config.sequence_batching.control_input):
        return f"the control_input '{missing[0]}' has no control, so nothing is sent to it", "Write its control."
    if unknown:
        return f"the file has no '{unknown[0]}'", did_you_mean(unknown[0], required)
    if missing:
        return f"'{missing[0]}' is missing or optional", ""
    if twice and sum(name == twice[0] for name, _, _ in controls(config)) > 1:
        return f"'{twice[0]}' gets two controls", "Give each control an input of its own."
    if twice:
        return f"'{twice[0]}' is given twice", "Give it once: as an input, a control, a state or a batch_input."
    return f"'{sorted(set(fed) - required)[0]}' has a default value", "Set optional: true for it."


def _pairs(view: ConfigView) -> Iterator[tuple[int, str, int, Any, Value, bool]]:
    """(version, side, index, the config's tensor, the file's, whether the model batches) of tensors that both have."""
    for number, scan in view.onnx.items():
        config = view.completed(scan)
        for side, values in (("input", (*scan.overridable, *scan.inputs)), ("output", scan.outputs)):
            known = {value.name: value for value in values}
            for index, tensor in enumerate(getattr(config, side)):
                if tensor.name in known:
                    yield number, side, index, tensor, known[tensor.name], config.max_batch_size > 0


@rule(
    "MW605",
    "data type differs from the file's",
    Severity.ERROR,
    why="The server does not convert tensors: config and file must have the same type.",
    fix="Use the file's type.",
    example=Example(
        'input [ { name: "x", data_type: TYPE_INT32, dims: [ 2 ] } ]',
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        base=_ONNX,
    ),
)
def other_type(view: ConfigView) -> Iterator[Found]:
    for number, side, index, tensor, value, _ in _pairs(view):
        if value.kind == "tensor" and value.elem_type in BY_ONNX:
            actual = BY_ONNX[value.elem_type].config
            given = data_type_name(tensor.data_type)
            if given != actual:
                message = f"'{tensor.name}' is {given} in the config, {actual} in {view.file_of(number)}"
                yield view.found(message, side, index, "data_type")


@rule(
    "MW606",
    "shape differs from the file's",
    Severity.ERROR,
    why="The dims of outputs must be exactly the model's; inputs may give a size to a dynamic dimension. With "
    "max_batch_size above 0 the first dimension is the batch, and the config leaves it out. The server goes by what "
    "onnxruntime infers from the graph, which may be more than the file declares: where a config names a size that the "
    "file leaves open, onnxruntime is asked, unless it does not load the file. An input with allow_ragged_batch gets "
    "the elements of all requests, one after the other: the model's shape must be [-1]. The dims of outputs that "
    "batch_output cuts are not compared.",
    fix="Use the file's dims; if the model batches, without the batch dimension.",
    example=Example(
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ 3 ] } ]',
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        base=_ONNX,
    ),
)
def other_shape(view: ConfigView) -> Iterator[Found]:
    for number, side, index, tensor, value, batched in _pairs(view):
        if side == "input" and tensor.allow_ragged_batch:
            yield from _other_ragged(view, number, index, tensor, value)
        if not _compares(view, side, tensor):
            continue
        dims = [int(dim) for dim in (tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims)]
        declared = plain_dims(value)
        if batched and declared and declared[0] != -1:
            continue  # MW607
        given = [-1, *dims] if batched else dims
        if _fits(given, declared, narrows=side == "input", dims=dims) and value.dims is not None:
            continue
        actual: Sequence[int] | None = declared
        if side == "output" and (value.dims is None or -1 in declared[int(batched) :]):
            actual = view.inferred(number).get(tensor.name)  # the file says less than onnxruntime may know
        if actual is not None and not _fits(given, actual, narrows=side == "input", dims=dims):
            shape = "no shape" if value.dims is None and side == "input" else list(actual)
            message = f"'{tensor.name}' has shape {given} in the config, {shape} in {view.file_of(number)}"
            yield view.found(message, side, index, "dims")


def _compares(view: ConfigView, side: str, tensor: Any) -> bool:
    """Whether the backend compares a tensor's dims: not those of ragged inputs and of batch_output's targets."""
    if side == "input":
        return not tensor.allow_ragged_batch
    return not any(tensor.name in entry.target_name for entry in view.message.batch_output)


def _other_ragged(view: ConfigView, number: int, index: int, tensor: Any, value: Value) -> Iterator[Found]:
    file, dims = view.file_of(number), plain_dims(value)
    if tensor.optional:
        yield view.found(f"'{tensor.name}' is ragged and optional", "input", index, "allow_ragged_batch")
    elif dims != [-1]:
        message = f"the ragged input '{tensor.name}' has shape {dims} in {file}; expected [-1], without the batch"
        yield view.found(message, "input", index, "allow_ragged_batch")


def _fits(given: Sequence[int], actual: Sequence[int], *, narrows: bool, dims: Sequence[int]) -> bool:
    if not actual:  # a scalar: dims of any number of ones fit it
        return all(dim == 1 for dim in dims)
    return len(given) == len(actual) and all(
        theirs in (ours, -1) if narrows else theirs == ours for ours, theirs in zip(given, actual, strict=True)
    )


@rule(
    "MW607",
    "batching of a model with a fixed first dimension",
    Severity.ERROR,
    why="With max_batch_size above 0 the server joins requests along the first dimension of every input and output, so "
    "that dimension must be dynamic in all of them.",
    fix="Export with a dynamic batch dimension, or set max_batch_size: 0 and write full shapes.",
    example=Example("", "", base=_ONNX, fault_files={"1/model.onnx": Onnx(dims=(4, 2))}),
)
def fixed_batch(view: ConfigView) -> Iterator[Found]:
    for number, scan in view.onnx.items():
        if cannot_batch(view.filled, scan) and view.options.auto_complete:
            message = f"the first dimension of a tensor in {view.file_of(number)} is not dynamic"
            yield view.found(message, "max_batch_size")
    for number, side, index, tensor, value, batched in _pairs(view):
        actual = plain_dims(value)
        if batched and actual and actual[0] != -1 and _compares(view, side, tensor):
            message = f"'{tensor.name}' has shape {actual} in {view.file_of(number)}: its first dimension is fixed"
            yield view.found(message, side, index)


@rule(
    "MW608",
    "input or output of a type that Triton does not serve",
    Severity.ERROR,
    why="Requests and responses carry tensors of Triton's data types. Triton cannot serve sequences and maps, which "
    "scikit-learn's converters often return, nor element types such as FLOAT8E4M3FN. The onnxruntime backend takes "
    "BFLOAT16 from 26.03 on.",
    fix="Export without sequences and maps; for skl2onnx: options={'zipmap': False}, for onnxmltools: zipmap=False. A "
    "ZipMap node can also be removed: its input is the tensor. Cast other element types in the model.",
    example=Example(
        'output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        'output [ { name: "y", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        base=_ONNX,
        fault_files={"1/model.onnx": Onnx(dtype="SEQUENCE")},
    ),
)
def not_servable(view: ConfigView) -> Iterator[Found]:
    for number, scan in view.onnx.items():
        for value in (*scan.inputs, *scan.outputs):
            if value.kind != "tensor":
                yield view.at(view.file_of(number), f"'{value.name}' is a {value.kind or 'value without a type'}")
            elif value.elem_type not in BY_ONNX:
                what = element_type(value.elem_type)
                yield view.at(view.file_of(number), f"'{value.name}' is of {what}, which Triton cannot serve")
            elif since := value.served_since(view.options.target):
                what = f"{element_type(value.elem_type)}, which the onnxruntime backend takes from Triton {since} on"
                fix = f"Serve it with Triton {since} or later, or cast it to FLOAT in the model."
                yield view.at(view.file_of(number), f"'{value.name}' is of {what}", fix=fix)


@rule(
    "MW609",
    "external weights missing or incomplete",
    Severity.ERROR,
    why="A large model keeps its weights in other files. They must exist and be complete. Since onnxruntime 1.24 they "
    "must also be in the folder of the ONNX file, symbolic links resolved.",
    fix="Copy the file with the weights beside the model, under the name that the model gives it.",
    example=Example("", "", base=_ONNX, fault_files={"1/model.onnx": Onnx(external="weights.bin")}),
)
def external_weights(view: ConfigView) -> Iterator[Found]:
    onnxruntime = view.options.target.onnxruntime
    anywhere = bool(onnxruntime) and _version(onnxruntime) < _INSIDE_SINCE
    for number, scan in view.onnx.items():
        folder = _weights_folder(view, number)
        problems: dict[str, str] = {}
        for external in scan.external_tensors:
            problem = _weights_problem(view, folder, external, anywhere)
            if problem:
                problems.setdefault(external.location, problem)
        for location, problem in problems.items():
            yield view.at(view.file_of(number), f"weights in '{location}' {problem}")


def _weights_folder(view: ConfigView, number: int) -> str:
    """The folder that external locations are relative to: that of the ONNX file, relative to the model's folder."""
    file = view.file_of(number)
    is_folder = view.model_file(number, view.filled.default_model_filename).is_dir()
    return file if is_folder else str(PurePosixPath(file).parent)


def _weights_problem(view: ConfigView, folder: str, external: ExternalTensor, anywhere: bool) -> str:
    location = external.location
    if not location or (location.startswith("/") and not anywhere):
        return "are outside the model's folder"
    path = Path(location) if location.startswith("/") else view.model.locate(f"{folder}/{location}")
    try:
        real, status = path.resolve(strict=True), path.stat()
    except (OSError, ValueError, RuntimeError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):
        return "are not a file"
    planned = f"{folder}/{location}" in view.model.overrides
    if not anywhere and not planned and not real.is_relative_to(view.model.locate(folder).resolve()):
        return "are outside the model's folder"
    end = external.offset + (external.length or 0)
    if status.st_size >= end:
        return ""
    inside = planned or real.is_relative_to(view.model.path.resolve())
    is_ = seen(path) if inside else None  # a message may quote it
    return f"are {is_.what}" if is_ else f"are incomplete: the file has {status.st_size:,} bytes of {end:,}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@rule(
    "MW610",
    "optional input of a model that batches",
    Severity.ERROR,
    why="All requests of a batch have the same inputs; the onnxruntime backend allows optional inputs only without "
    "batching.",
    fix="Set max_batch_size: 0, or make the input a required one.",
    example=Example(
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ], optional: true } ]',
        'input [ { name: "x", data_type: TYPE_FP32, dims: [ 2 ] } ]',
        base=_ONNX,
    ),
)
def optional_batched(view: ConfigView) -> Iterator[Found]:
    if view.message.backend == "onnxruntime" and view.batched:
        for index, tensor in enumerate(view.message.input):
            if tensor.optional:
                yield view.found(f"input '{tensor.name}' is optional", "input", index, "optional")


@rule(
    "MW612",
    "output with another number of rows",
    Severity.ERROR,
    why="With max_batch_size above 0 the server gives each request of a batch as many rows of every output as it sent. "
    "The file's own names say that this output has another number of rows: the boxes that a detector found, sums over "
    "the batch. Requests then fail, or get rows of others.",
    fix="Set max_batch_size: 0; or, where it is the same number, give the dimension the name that the inputs have.",
    unexercised="the local server loads the model, and fails when requests arrive",
    example=Example("", "", base=_ONNX, fault_files={"1/model.onnx": Onnx(rows="found")}),
)
def other_number_of_rows(view: ConfigView) -> Iterator[Found]:
    for number, scan in view.onnx.items():
        config = view.completed(scan)
        if config.max_batch_size > 0:
            served = {tensor.name: index for index, tensor in enumerate(config.output)}
            no_rows = _without_rows(config)
            for found in other_rows([value for value in scan.inputs if value.name not in no_rows], scan.outputs):
                if found.output in served and found.output not in no_rows:
                    message = (
                        f"'{found.output}' has '{found.name}' rows in {view.file_of(number)}, inputs '{found.rows}'"
                    )
                    yield view.found(message, "output", served[found.output])


def _without_rows(config: Any) -> set[str]:
    """Tensors whose first dimension is not the batch: ragged ones, and what the backend makes of them."""
    names = {tensor.name for tensor in config.input if tensor.allow_ragged_batch}
    for entry in (*config.batch_input, *config.batch_output):
        names.update(entry.target_name)
    return names
