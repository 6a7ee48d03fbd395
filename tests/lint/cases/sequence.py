"""Sequence batching: controls, states, the two strategies."""

from tests.lint.cases.build import X, Y, python
from tests.lint.trees import Dir, Link, Tree


def sequence(fields: str = "", *, batch: int = 4, extra: str = "", inputs: str = X, outputs: str = Y) -> Tree:
    return python(f"sequence_batching {{ {fields} }} {extra}", batch=batch, inputs=inputs, outputs=outputs)


def control(fields: str, kind: str = "CONTROL_SEQUENCE_START", name: str = "c") -> str:
    return f'control_input [{{ name: "{name}" control [{{ kind: {kind} {fields} }}] }}]'


def state(fields: str = "data_type: TYPE_FP32 dims: [4]", names: str = 'input_name: "s" output_name: "t"') -> str:
    return f"state [{{ {names} {fields} }}]"


def initial(fields: str, *, own: str = "data_type: TYPE_FP32 dims: [4]", **files: str | bytes | Dir | Link) -> Tree:
    """A state with one initial state. `files` lie in initial_state/."""
    tree = sequence(state(f"{own} initial_state [{{ {fields} }}]"))
    return {**tree, **{f"m/initial_state/{name}": content for name, content in files.items()}}


START = control("int32_false_true: [0, 1]")
CORRID = "CONTROL_SEQUENCE_CORRID"
ZERO = 'name: "zero" data_type: TYPE_FP32 dims: [4] zero_data: true'
FILE = 'name: "file" data_type: TYPE_FP32 dims: [4] data_file: "start"'

TREES: dict[str, Tree] = {
    "empty": sequence(),
    "without batching": sequence(batch=0),
    "with dynamic batching": sequence(extra="dynamic_batching { }"),
    "idle zero": sequence("max_sequence_idle_microseconds: 0"),
    "control": sequence(START),
    "control without name": sequence('control_input [{ control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }]'),
    "control with an empty name": sequence(control("int32_false_true: [0, 1]", name="")),
    "control input without control": sequence('control_input [{ name: "c" }]'),
    "control without values": sequence(control("")),
    "control without kind": sequence('control_input [{ name: "c" control [{ int32_false_true: [0, 1] }] }]'),
    "control of an unknown kind's number": sequence(control("int32_false_true: [0, 1]", kind="7")),
    "control int32 of one": sequence(control("int32_false_true: [0]")),
    "control int32 of three": sequence(control("int32_false_true: [0, 1, 2]")),
    "control int32 equal": sequence(control("int32_false_true: [1, 1]")),
    "control fp32": sequence(control("fp32_false_true: [0, 1]")),
    "control fp32 of one": sequence(control("fp32_false_true: [0]")),
    "control fp32 of three": sequence(control("fp32_false_true: [0, 1, 2]")),
    "control bool": sequence(control("bool_false_true: [false, true]")),
    "control bool of one": sequence(control("bool_false_true: [true]")),
    "control bool of three": sequence(control("bool_false_true: [true, true, true]")),
    "control int32 and fp32": sequence(control("int32_false_true: [0, 1] fp32_false_true: [0, 1]")),
    "control fp32 and bool": sequence(control("fp32_false_true: [0, 1] bool_false_true: [false, true]")),
    "control with data type": sequence(control("int32_false_true: [0, 1] data_type: TYPE_INT32")),
    "control with data type alone": sequence(control("data_type: TYPE_INT32")),
    "control end": sequence(control("int32_false_true: [0, 1]", kind="CONTROL_SEQUENCE_END")),
    "control ready": sequence(control("int32_false_true: [0, 1]", kind="CONTROL_SEQUENCE_READY")),
    "control twice of a kind": sequence(START + " " + control("int32_false_true: [0, 1]", name="d")),
    "control twice of a kind in one input": sequence(
        'control_input [{ name: "c" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }, '
        '{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }]'
    ),
    "two controls of one tensor": sequence(
        'control_input [{ name: "c" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }, '
        '{ kind: CONTROL_SEQUENCE_END int32_false_true: [0, 1] }] }]'
    ),
    "two controls of one name": sequence(START + " " + control("int32_false_true: [0, 1]", kind="CONTROL_SEQUENCE_END")),
    "two controls of two names": sequence(START + " " + control("int32_false_true: [0, 1]", kind="CONTROL_SEQUENCE_END", name="d")),
    "control named as an input": sequence(control("int32_false_true: [0, 1]", name="x")),
    "correlation id uint64": sequence(control("data_type: TYPE_UINT64", kind=CORRID)),
    "correlation id int64": sequence(control("data_type: TYPE_INT64", kind=CORRID)),
    "correlation id uint32": sequence(control("data_type: TYPE_UINT32", kind=CORRID)),
    "correlation id int32": sequence(control("data_type: TYPE_INT32", kind=CORRID)),
    "correlation id string": sequence(control("data_type: TYPE_STRING", kind=CORRID)),
    "correlation id int16": sequence(control("data_type: TYPE_INT16", kind=CORRID)),
    "correlation id fp32": sequence(control("data_type: TYPE_FP32", kind=CORRID)),
    "correlation id without data type": sequence(control("", kind=CORRID)),
    "correlation id with int32_false_true": sequence(control("data_type: TYPE_INT32 int32_false_true: [0, 1]", kind=CORRID)),
    "correlation id twice": sequence(control("data_type: TYPE_INT32", kind=CORRID) + control("data_type: TYPE_INT32", kind=CORRID, name="d")),
    "iterative": sequence("iterative_sequence: true"),
    "iterative, decoupled": sequence("iterative_sequence: true", extra="model_transaction_policy { decoupled: true }"),
    "decoupled": sequence(START, extra="model_transaction_policy { decoupled: true }"),
    "decoupled and oldest": sequence(f"oldest {{ max_candidate_sequences: 4 }} {START}", extra="model_transaction_policy { decoupled: true }"),
    "direct": sequence("direct { }"),
    "direct, slots -0.1": sequence("direct { minimum_slot_utilization: -0.1 }"),
    "direct, slots 0": sequence("direct { minimum_slot_utilization: 0 }"),
    "direct, slots 1": sequence("direct { minimum_slot_utilization: 1 }"),
    "direct, slots 1.1": sequence("direct { minimum_slot_utilization: 1.1 }"),
    "direct, slots nan": sequence("direct { minimum_slot_utilization: nan }"),
    "direct, slots inf": sequence("direct { minimum_slot_utilization: inf }"),
    "direct, delay": sequence("direct { max_queue_delay_microseconds: 100 minimum_slot_utilization: 0.5 }"),
    "oldest": sequence("oldest { }"),
    "oldest, candidates 0": sequence("oldest { max_candidate_sequences: 0 }"),
    "oldest, candidates 1": sequence("oldest { max_candidate_sequences: 1 }"),
    "oldest, candidates below the batch": sequence("oldest { max_candidate_sequences: 3 }"),
    "oldest, candidates -1": sequence("oldest { max_candidate_sequences: -1 }"),
    "oldest, preferred 0": sequence("oldest { max_candidate_sequences: 4 preferred_batch_size: [0] }"),
    "oldest, preferred 4": sequence("oldest { max_candidate_sequences: 4 preferred_batch_size: [4] }"),
    "oldest, preferred 5": sequence("oldest { max_candidate_sequences: 4 preferred_batch_size: [5] }"),
    "oldest, preferred above candidates": sequence("oldest { max_candidate_sequences: 2 preferred_batch_size: [4] }"),
    "oldest, preferred -1": sequence("oldest { max_candidate_sequences: 4 preferred_batch_size: [-1] }"),
    "oldest, preferred without batching": sequence("oldest { max_candidate_sequences: 4 preferred_batch_size: [1] }", batch=0),
    "oldest, order kept": sequence("oldest { max_candidate_sequences: 4 preserve_ordering: true }"),
    "state": sequence(state()),
    "state without batching": sequence(state(), batch=0),
    "state without input name": sequence(state(names='output_name: "t"')),
    "state without output name": sequence(state(names='input_name: "s"')),
    "state named as an input": sequence(state(names='input_name: "x" output_name: "t"')),
    "state named as an output": sequence(state(names='input_name: "s" output_name: "y"')),
    "state of one name": sequence(state(names='input_name: "s" output_name: "s"')),
    "state with an output of other dims": sequence(state("data_type: TYPE_FP32 dims: [5]", 'input_name: "s" output_name: "y"')),
    "state with an output of another type": sequence(state("data_type: TYPE_INT32 dims: [4]", 'input_name: "s" output_name: "y"')),
    "state without data type": sequence(state("dims: [4]")),
    "state of BF16": sequence(state("data_type: TYPE_BF16 dims: [4]")),
    "state of strings": sequence(state("data_type: TYPE_STRING dims: [4]")),
    "state without dims": sequence(state("data_type: TYPE_FP32")),
    "state with dim 0": sequence(state("data_type: TYPE_FP32 dims: [0]")),
    "state with dim -1": sequence(state("data_type: TYPE_FP32 dims: [-1]")),
    "state with dim -2": sequence(state("data_type: TYPE_FP32 dims: [-2]")),
    "state twice": sequence(state() + " " + state()),
    "states of one input": sequence(state() + " " + state(names='input_name: "s" output_name: "u"')),
    "state with one buffer": sequence(state("data_type: TYPE_FP32 dims: [4] use_same_buffer_for_input_output: true")),
    "state that grows": sequence(state("data_type: TYPE_FP32 dims: [4] use_growable_memory: true")),
    "state that grows in one buffer": sequence(state("data_type: TYPE_FP32 dims: [4] use_growable_memory: true use_same_buffer_for_input_output: true")),
    "state that grows in one buffer, KIND_CPU": sequence(
        state("data_type: TYPE_FP32 dims: [4] use_growable_memory: true use_same_buffer_for_input_output: true"),
        extra="instance_group [{ kind: KIND_CPU }]",
    ),
    "state of two dims in one buffer that varies": sequence(state("data_type: TYPE_FP32 dims: [-1, 4] use_same_buffer_for_input_output: true")),
    "initial zeros": initial(ZERO),
    "initial zero_data false": initial(ZERO.replace("true", "false")),
    "initial without name": initial(ZERO.replace('name: "zero"', "")),
    "initial without data": initial(ZERO.replace("zero_data: true", "")),
    "initial without data type": initial(ZERO.replace("data_type: TYPE_FP32", "")),
    "initial of another data type": initial(ZERO.replace("FP32", "INT32")),
    "initial without dims": initial(ZERO.replace("dims: [4]", "")),
    "initial of fewer dims": initial(ZERO.replace("[4]", "[3]")),
    "initial of more dims": initial(ZERO.replace("[4]", "[4, 1]")),
    "initial with dim -1": initial(ZERO.replace("[4]", "[-1]")),
    "initial with dim 0": initial(ZERO.replace("[4]", "[0]")),
    "initial fills a variable dim": initial(ZERO, own="data_type: TYPE_FP32 dims: [-1]"),
    "initial of a variable dim with dim -1": initial(ZERO.replace("[4]", "[-1]"), own="data_type: TYPE_FP32 dims: [-1]"),
    "initial twice": sequence(state(f"data_type: TYPE_FP32 dims: [4] initial_state [{{ {ZERO} }}, {{ {ZERO} }}]")),
    "initial file": initial(FILE, start=bytes(16)),
    "initial file absent": initial(FILE),
    "initial file empty": initial(FILE, start=b""),
    "initial file too small": initial(FILE, start=bytes(15)),
    "initial file for one batch item only": initial(FILE, start=bytes(16)),
    "initial file too large": initial(FILE, start=bytes(17)),
    "initial file is a directory": initial(FILE, start=Dir()),
    "initial file is a dangling link": initial(FILE, start=Link("gone")),
    "initial file named empty": initial(FILE.replace('"start"', '""')),
    "initial file in the model's folder": {**initial(FILE), "m/start": bytes(16)},
    "initial file leaves the folder": {**initial(FILE.replace('"start"', '"../start"'), other=b""), "m/start": bytes(16)},
    "initial file of strings": initial(FILE.replace("FP32", "STRING"), own="data_type: TYPE_STRING dims: [4]", start=bytes(16)),
    "initial zeros of strings": initial(ZERO.replace("FP32", "STRING"), own="data_type: TYPE_STRING dims: [4]"),
}  # fmt: skip
