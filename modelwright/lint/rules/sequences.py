"""MW31x, MW32x: the sequence batcher, its control inputs and its states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.rules.batching import sizes_out_of_range
from modelwright.lint.view import ConfigView
from modelwright.triton.layout import INITIAL_STATE
from modelwright.triton.model_config_pb2 import data_type_name
from modelwright.triton.tensor_files import size_bytes

_FIELD = "sequence_batching"
_CORRID = "CONTROL_SEQUENCE_CORRID"
_BOOLEAN = ("CONTROL_SEQUENCE_START", "CONTROL_SEQUENCE_END", "CONTROL_SEQUENCE_READY")
_CORRID_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
_VALUES = ("int32_false_true", "fp32_false_true", "bool_false_true")


def _start(rest: str) -> str:
    return f'sequence_batching {{ control_input [ {{ name: "START", control [ {{ {rest} }} ] }} ] }}'


def _state(rest: str) -> str:
    state = 'input_name: "in", output_name: "out", data_type: TYPE_FP32, dims: [ 2 ]'
    return f"sequence_batching {{ state [ {{ {state}, initial_state [ {{ {rest} }} ] }} ] }}"


def _kind(control: Any) -> str:
    known = control.kind in control.Kind.values()
    return str(control.Kind.Name(control.kind)) if known else f"control {control.kind}"


def _controls(view: ConfigView) -> Iterator[tuple[tuple[str | int, ...], Any, Any]]:
    """(path, control_input, control)."""
    for index, entry in enumerate(view.message.sequence_batching.control_input):
        for place, control in enumerate(entry.control):
            yield (_FIELD, "control_input", index, "control", place), entry, control


@rule(
    "MW311",
    "control input without a name, or named twice",
    Severity.ERROR,
    why="A control input is an input of the model: it needs a name, and one entry in the list.",
    fix="Write the name of the model's input; put several controls of one input into one entry.",
    example=Example(
        "sequence_batching { control_input [ { control [ { kind: CONTROL_SEQUENCE_START, "
        "int32_false_true: [ 0, 1 ] } ] } ] }",
        _start("kind: CONTROL_SEQUENCE_START, int32_false_true: [ 0, 1 ]"),
    ),
)
def control_name(view: ConfigView) -> Iterator[Found]:
    seen: set[str] = set()
    for index, entry in enumerate(view.message.sequence_batching.control_input):
        path = (_FIELD, "control_input", index)
        if not entry.name:
            yield view.found("a control input has no name", *path)
        elif entry.name in seen:
            yield view.found(f"control input '{entry.name}' has two entries", *path)
        seen.add(entry.name)


@rule(
    "MW312",
    "control kind given twice",
    Severity.ERROR,
    why="Each kind of control (start, end, ready, correlation ID) can go to one input only.",
    fix="Remove one of the two.",
    example=Example(
        'sequence_batching { control_input [ { name: "A", control [ { kind: CONTROL_SEQUENCE_START, '
        'int32_false_true: [ 0, 1 ] } ] }, { name: "B", control [ { kind: CONTROL_SEQUENCE_START, '
        "int32_false_true: [ 0, 1 ] } ] } ] }",
        'sequence_batching { control_input [ { name: "A", control [ { kind: CONTROL_SEQUENCE_START, '
        'int32_false_true: [ 0, 1 ] } ] }, { name: "B", control [ { kind: CONTROL_SEQUENCE_END, '
        "int32_false_true: [ 0, 1 ] } ] } ] }",
    ),
)
def control_twice(view: ConfigView) -> Iterator[Found]:
    counts: Counter[int] = Counter()
    for path, _, control in _controls(view):
        counts[control.kind] += 1
        if counts[control.kind] == 2:
            yield view.found(f"{_kind(control)} is given twice", *path)


@rule(
    "MW313",
    "control without exactly one pair of values",
    Severity.ERROR,
    why="The controls start, end and ready need exactly one of int32_false_true, fp32_false_true and bool_false_true, "
    "with two entries: the values for false and true.",
    fix="Write one of them, such as fp32_false_true: [ 0, 1 ].",
    example=Example(
        _start("kind: CONTROL_SEQUENCE_START, fp32_false_true: [ 1 ]"),
        _start("kind: CONTROL_SEQUENCE_START, fp32_false_true: [ 0, 1 ]"),
    ),
)
def control_values(view: ConfigView) -> Iterator[Found]:
    for path, _, control in _controls(view):
        if _kind(control) not in _BOOLEAN:
            continue
        given = [name for name in _VALUES if len(getattr(control, name))]
        if len(given) != 1:
            what = f"{' and '.join(given)} are given" if given else "the values for false and true are missing"
            yield view.found(f"{_kind(control)}: {what}", *path)
        elif len(getattr(control, given[0])) != 2:
            yield view.found(f"{_kind(control)}: {given[0]} needs two entries", *path, given[0])


@rule(
    "MW314",
    "invalid correlation ID",
    Severity.ERROR,
    why="A correlation ID is an integer of 32 or 64 bits or a string, and has no values for false and true.",
    fix="Write data_type: TYPE_UINT64 (or TYPE_INT64, TYPE_UINT32, TYPE_INT32, TYPE_STRING), without *_false_true.",
    example=Example(
        _start("kind: CONTROL_SEQUENCE_CORRID, data_type: TYPE_FP32"),
        _start("kind: CONTROL_SEQUENCE_CORRID, data_type: TYPE_UINT64"),
    ),
)
def correlation_id(view: ConfigView) -> Iterator[Found]:
    for path, _, control in _controls(view):
        if _kind(control) != _CORRID:
            continue
        if any(len(getattr(control, name)) for name in _VALUES):
            yield view.found("a correlation ID has no values for false and true", *path)
        name = data_type_name(control.data_type)
        if name not in _CORRID_TYPES:
            yield view.found(f"a correlation ID cannot be {name}", *path, "data_type")


@rule(
    "MW315",
    "preferred batch size of the oldest strategy out of range",
    Severity.ERROR,
    why="As for the dynamic batcher, a preferred batch size must be from 1 to max_batch_size.",
    fix="Keep the sizes within that range, or remove preferred_batch_size.",
    example=Example(
        "sequence_batching { oldest { max_candidate_sequences: 4, preferred_batch_size: [ 9 ] } }",
        "sequence_batching { oldest { max_candidate_sequences: 4, preferred_batch_size: [ 4 ] } }",
    ),
)
def oldest_preferred_size(view: ConfigView) -> Iterator[Found]:
    sizes = view.message.sequence_batching.oldest.preferred_batch_size
    yield from sizes_out_of_range(view, sizes, _FIELD, "oldest")


@rule(
    "MW316",
    "slot utilisation out of range",
    Severity.ERROR,
    why="minimum_slot_utilization is a fraction of the slots.",
    fix="Write a number from 0 to 1.",
    example=Example(
        "sequence_batching { direct { minimum_slot_utilization: 1.5 } }",
        "sequence_batching { direct { minimum_slot_utilization: 1.0 } }",
    ),
)
def slot_utilisation(view: ConfigView) -> Iterator[Found]:
    share = view.message.sequence_batching.direct.minimum_slot_utilization
    if share < 0 or share > 1:
        yield view.found(f"minimum_slot_utilization is {share:g}", _FIELD, "direct", "minimum_slot_utilization")


@rule(
    "MW321",
    "initial state that does not fit its state",
    Severity.ERROR,
    why="A state has at most one initial state. It needs a name, the state's data type, and the state's dims with a "
    "size for each dynamic one.",
    fix="Repeat the state's data_type and dims, with a number for each -1.",
    example=Example(
        _state('name: "zero", data_type: TYPE_FP32, dims: [ 3 ], zero_data: true'),
        _state('name: "zero", data_type: TYPE_FP32, dims: [ 2 ], zero_data: true'),
    ),
)
def initial_state(view: ConfigView) -> Iterator[Found]:
    seen: set[str] = set()
    for index, state in enumerate(view.message.sequence_batching.state):
        path = (_FIELD, "state", index, "initial_state")
        if len(state.initial_state) > 1:
            yield view.found(f"state '{state.input_name}' has {len(state.initial_state)} initial states", *path)
        elif state.initial_state:
            problem = _state_problem(state, state.initial_state[0])
            if not problem and state.input_name in seen:
                problem = "another state has this input_name"
            seen.add(state.input_name)
            if problem:
                yield view.found(f"state '{state.input_name}': {problem}", *path, 0)


def _state_problem(state: Any, initial: Any) -> str:
    if initial.data_type != state.data_type:
        return f"it is {data_type_name(state.data_type)}, its initial state is {data_type_name(initial.data_type)}"
    if not initial.name:
        return "its initial state has no name"
    if initial.WhichOneof("state_data") is None:
        return "its initial state has neither zero_data nor data_file"
    fits = len(initial.dims) == len(state.dims) and all(
        given != -1 and wanted in (-1, given) for given, wanted in zip(initial.dims, state.dims, strict=True)
    )
    return "" if fits else f"it has dims {list(state.dims)}, its initial state has {list(initial.dims)}"


@rule(
    "MW322",
    "file of an initial state missing or too small",
    Severity.ERROR,
    why="The server reads data_file from initial_state/ in the model's folder when the model loads. It must hold the "
    "whole tensor.",
    fix="Put a file of the tensor's size there. A string is written as its length (4 bytes, little-endian) and its "
    "bytes.",
    example=Example(
        _state('name: "s", data_type: TYPE_FP32, dims: [ 2 ], data_file: "s"'),
        _state('name: "s", data_type: TYPE_FP32, dims: [ 2 ], data_file: "s"'),
        fixed_files={"initial_state/s": b"\0" * 8},
    ),
)
def initial_state_file(view: ConfigView) -> Iterator[Found]:
    for index, state in enumerate(view.message.sequence_batching.state):
        initial = state.initial_state[0] if len(state.initial_state) == 1 else None
        if initial is not None and initial.WhichOneof("state_data") == "data_file":
            needed = size_bytes(data_type_name(initial.data_type), initial.dims)
            problem = data_problem(view, f"{INITIAL_STATE}/{initial.data_file}", needed)
            if problem:
                yield view.found(problem, _FIELD, "state", index, "initial_state", 0, "data_file")


def data_problem(view: ConfigView, relative: str, needed_bytes: int | None) -> str:
    """Why a file cannot hold a tensor's bytes; '' if it can. `needed_bytes` is None for strings."""
    path = view.model.locate(relative)
    if not path.is_file():
        return f"the file '{relative}' does not exist"
    actual = path.stat().st_size
    if needed_bytes is not None and actual < needed_bytes:
        return f"'{relative}' has {actual:,} bytes, the tensor needs {needed_bytes:,}"
    return ""
