"""MW92x: configs of ONNX models that load and do not do what their author expects. All of them are warnings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelwright.lint.rule import Example, Found, Severity, rule
from modelwright.lint.rules.model import THREAD_COUNTS
from modelwright.lint.rules.onnx import fed_inputs
from modelwright.lint.view import ConfigView
from modelwright.server.backends.onnxruntime.load_check import parse_integer

_MANY_THREADS = 128
_WHOLE = re.compile(r"\s*[+-]?[0-9]+\s*")


@rule(
    "MW920",
    "number that was hardly meant",
    Severity.WARNING,
    why="The onnxruntime backend reads the number in front of a value and ignores what follows: 1.5 and 1e3 are 1. "
    "Each instance starts as many threads of its own as it is told: hundreds of them wait for each other.",
    fix="Write a whole number; of threads, at most the cores divided by the instances.",
    example=Example(
        'parameters { key: "intra_op_thread_count" value { string_value: "500" } }',
        'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
        base="onnxruntime",
    ),
)
def odd_thread_count(view: ConfigView) -> Iterator[Found]:
    if view.message.backend != "onnxruntime":
        return
    for key in (*THREAD_COUNTS, "execution_mode"):
        value = view.message.parameters[key].string_value if key in view.message.parameters else ""
        number = parse_integer(value)
        if number is not None and not _WHOLE.fullmatch(value):
            yield view.found(f"{key}: the backend reads '{value}' as {number}", "parameters", key)
        elif number is not None and number > _MANY_THREADS:
            yield view.found(f"{key}: {number:,} threads for each instance", "parameters", key)


@rule(
    "MW921",
    "state or batch_input that the file lacks",
    Severity.WARNING,
    why="The onnxruntime backend counts inputs when a model loads, and does not look for the names of states and of "
    "batch_input's targets. A model with a wrong one loads, and every request fails.",
    fix="Use the file's names.",
    example=Example(
        'sequence_batching { state [ { input_name: "x", output_name: "z", data_type: TYPE_FP32, dims: [ 2 ] } ] }\n'
        "input [ ]",
        'sequence_batching { state [ { input_name: "x", output_name: "y", data_type: TYPE_FP32, dims: [ 2 ] } ] }\n'
        "input [ ]",
        base="onnxruntime",
        auto_complete=False,
    ),
)
def unknown_states(view: ConfigView) -> Iterator[Found]:
    for number, scan in view.onnx.items():
        if len(list(fed_inputs(view.completed(scan)))) != len(scan.inputs):
            continue  # MW604
        file = view.file_of(number)
        inputs = {value.name for value in (*scan.inputs, *scan.overridable)}
        outputs = {value.name for value in scan.outputs}
        for index, state in enumerate(view.message.sequence_batching.state):
            path = ("sequence_batching", "state", index)
            if state.input_name not in inputs:
                yield view.found(f"{file} has no input '{state.input_name}'", *path, "input_name")
            if state.output_name not in outputs:
                yield view.found(f"{file} has no output '{state.output_name}'", *path, "output_name")
        for index, entry in enumerate(view.message.batch_input):
            for name in entry.target_name:
                if name not in inputs:
                    yield view.found(f"{file} has no input '{name}'", "batch_input", index, "target_name")
