"""Warm-up samples: those that cannot be made, those that the model cannot be asked, those that it fails."""

from tests.lint.cases.build import X, python
from tests.lint.trees import DECOUPLED_PY, MODEL_PY, Content, Dir, Link, Tree


def warmup(sample: str, *, batch: int = 4, extra: str = "", inputs: str = X, **files: Content) -> Tree:
    """One sample. `files` lie in warmup/."""
    tree = python(f"model_warmup [{{ {sample} }}] {extra}", batch=batch, inputs=inputs)
    return {**tree, **{f"m/warmup/{name}": content for name, content in files.items()}}


def given(fields: str, name: str = "x") -> str:
    return f'inputs {{ key: "{name}" value {{ {fields} }} }}'


ZERO = given("data_type: TYPE_FP32 dims: [4] zero_data: true")


def from_file(path: str) -> str:
    return given(f'data_type: TYPE_FP32 dims: [4] input_data_file: "{path}"')


FILE = from_file("data")
STRINGS = 'input [{ name: "x" data_type: TYPE_STRING dims: [2] }]'
STRING_FILE = given('data_type: TYPE_STRING dims: [2] input_data_file: "data"')

TREES: dict[str, Tree] = {
    "zeros": warmup(f'name: "s" batch_size: 1 {ZERO}'),
    "without name": warmup(f"batch_size: 1 {ZERO}"),
    "empty sample": warmup(""),
    "without inputs": warmup('name: "s" batch_size: 1'),
    "batch size absent": warmup(f'name: "s" {ZERO}'),
    "batch size zero": warmup(f'name: "s" batch_size: 0 {ZERO}'),
    "batch size zero and a fault": warmup('name: "s" batch_size: 0 inputs { key: "x" value { } }'),
    "batch size zero and no data": warmup(f'name: "s" batch_size: 0 {given("data_type: TYPE_FP32 dims: [4]")}'),
    "batch size the maximum": warmup(f'name: "s" batch_size: 4 {ZERO}'),
    "passive instances, other dims": warmup(
        f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [5] zero_data: true")}',
        extra="instance_group [{ passive: true }]",
    ),
    "one group of two passive, other dims": warmup(
        f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [5] zero_data: true")}',
        extra="instance_group [{ passive: true }, { }]",
    ),
    "batch size above the maximum": warmup(f'name: "s" batch_size: 5 {ZERO}'),
    "batch size two, no batching": warmup(f'name: "s" batch_size: 2 {ZERO}', batch=0),
    "batch size one, no batching": warmup(f'name: "s" batch_size: 1 {ZERO}', batch=0),
    "batch size zero, no batching": warmup(f'name: "s" batch_size: 0 {ZERO}', batch=0),
    "batch size negative": warmup(f'name: "s" batch_size: -1 {ZERO}'),
    "random": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4] random_data: true")}'),
    "zero_data false": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4] zero_data: false")}'),
    "random_data false": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4] random_data: false")}'),
    "no data": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4]")}'),
    "no data type": warmup(f'name: "s" batch_size: 1 {given("dims: [4] zero_data: true")}'),
    "another data type": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_INT32 dims: [4] zero_data: true")}'),
    "no dims": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 zero_data: true")}'),
    "dim -1": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [-1] zero_data: true")}'),
    "dim -2": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [-2] zero_data: true")}'),
    "dim 0": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [0] zero_data: true")}'),
    "other dims": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [5] zero_data: true")}'),
    "other number of dims": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4, 1] zero_data: true")}'),
    "dims fill a variable one": warmup(
        f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [7] zero_data: true")}',
        inputs='input [{ name: "x" data_type: TYPE_FP32 dims: [-1] }]',
    ),
    "dims of the reshape": warmup(
        f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [2, 2] zero_data: true")}',
        inputs='input [{ name: "x" data_type: TYPE_FP32 dims: [4] reshape { shape: [2, 2] } }]',
    ),
    "dims before the reshape": warmup(
        f'name: "s" batch_size: 1 {ZERO}',
        inputs='input [{ name: "x" data_type: TYPE_FP32 dims: [4] reshape { shape: [2, 2] } }]',
    ),
    "unknown input": warmup(f'name: "s" batch_size: 1 {ZERO} {given("data_type: TYPE_FP32 dims: [4] zero_data: true", "w")}'),
    "unknown input without a type": warmup(f'name: "s" batch_size: 1 {ZERO} {given("zero_data: true", "w")}'),
    "unknown input without a type, in dims": warmup(f'name: "s" batch_size: 1 {ZERO} {given("dims: [4] zero_data: true", "w")}'),
    "unknown input alone": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4] zero_data: true", "w")}'),
    "an input missing": warmup(f'name: "s" batch_size: 1 {ZERO}', inputs=f"{X} {X.replace('x', 'w', 1)}"),
    "an optional input missing": warmup(
        f'name: "s" batch_size: 1 {ZERO}', inputs=f'{X} input [{{ name: "w" data_type: TYPE_FP32 dims: [4] optional: true }}]'
    ),
    "input with an empty name": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4] zero_data: true", "")}'),
    "input twice": warmup(f'name: "s" batch_size: 1 {ZERO} {ZERO}'),
    "count zero": warmup(f'name: "s" batch_size: 1 count: 0 {ZERO}'),
    "count one": warmup(f'name: "s" batch_size: 1 count: 1 {ZERO}'),
    "count two": warmup(f'name: "s" batch_size: 1 count: 2 {ZERO}'),
    "count negative": warmup(f'name: "s" batch_size: 1 count: -1 {ZERO}'),
    "two data sources": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_FP32 dims: [4] zero_data: true random_data: true")}'),
    "two samples of one name": python(f'model_warmup [{{ name: "s" batch_size: 1 {ZERO} }}, {{ name: "s" batch_size: 1 {ZERO} }}]'),
    "file": warmup(f'name: "s" batch_size: 1 {FILE}', data=bytes(16)),
    "file absent": warmup(f'name: "s" batch_size: 1 {FILE}'),
    "file absent, batch size zero": warmup(f'name: "s" batch_size: 0 {FILE}'),
    "file in the model's folder": {**warmup(f'name: "s" batch_size: 1 {FILE}'), "m/data": bytes(16)},
    "file in the version": {**warmup(f'name: "s" batch_size: 1 {FILE}'), "m/1/data": bytes(16)},
    "file leaves the folder": {**warmup(f'name: "s" batch_size: 1 {from_file("../data")}', other=b""), "m/data": bytes(16)},
    "file named empty": warmup(f'name: "s" batch_size: 1 {from_file("")}'),
    "file empty": warmup(f'name: "s" batch_size: 1 {FILE}', data=b""),
    "file too small": warmup(f'name: "s" batch_size: 1 {FILE}', data=bytes(15)),
    "file too large": warmup(f'name: "s" batch_size: 1 {FILE}', data=bytes(17)),
    "file for one item of a batch of two": warmup(f'name: "s" batch_size: 2 {FILE}', data=bytes(16)),
    "file for a batch of two": warmup(f'name: "s" batch_size: 2 {FILE}', data=bytes(32)),
    "file is a directory": warmup(f'name: "s" batch_size: 1 {FILE}', data=Dir()),
    "file is a link": warmup(f'name: "s" batch_size: 1 {FILE}', data=Link("other"), other=bytes(16)),
    "file is a dangling link": warmup(f'name: "s" batch_size: 1 {FILE}', data=Link("gone")),
    "string zeros": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_STRING dims: [2] zero_data: true")}', inputs=STRINGS),
    "string random": warmup(f'name: "s" batch_size: 1 {given("data_type: TYPE_STRING dims: [2] random_data: true")}', inputs=STRINGS),
    "string file": warmup(f'name: "s" batch_size: 1 {STRING_FILE}', inputs=STRINGS, data=b"\x01\0\0\0a\x01\0\0\0b"),
    "string file of one string": warmup(f'name: "s" batch_size: 1 {STRING_FILE}', inputs=STRINGS, data=b"\x01\0\0\0a"),
    "string file without lengths": warmup(f'name: "s" batch_size: 1 {STRING_FILE}', inputs=STRINGS, data=b"ab"),
    "string file empty": warmup(f'name: "s" batch_size: 1 {STRING_FILE}', inputs=STRINGS, data=b""),
    "sequence model": warmup(
        f'name: "s" batch_size: 1 {ZERO}',
        extra='sequence_batching { control_input [{ name: "c" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }] }] }',
    ),
    "sequence model, batch of two": warmup(f'name: "s" batch_size: 2 {ZERO}', extra="sequence_batching { }"),
    "decoupled model": {
        **warmup(f'name: "s" batch_size: 1 {ZERO}', extra="model_transaction_policy { decoupled: true }"),
        "m/1/model.py": DECOUPLED_PY,
    },
    "model that fails": {
        **warmup(f'name: "s" batch_size: 1 {ZERO}'),
        "m/1/model.py": MODEL_PY.replace("return [", "raise ValueError('no')  # ["),
    },
    "a file called warmup": {**python(), "m/warmup": ""},
}  # fmt: skip
