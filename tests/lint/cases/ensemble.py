"""Ensembles: their own configuration, their wiring, and what they ask of their members."""

from tests.lint.cases.build import X, Y, config, ensemble, python, step, text, without
from tests.lint.trees import MODEL_PY, Dir, Link, Tree

FIRST = step("a", "x: x", "y: middle")
SECOND = step("b", "x: middle", "y: y")
ONE = step("a", "x: x", "y: y")


def tensor(kind: str, name: str, dims: str = "4", data_type: str = "TYPE_FP32", more: str = "") -> str:
    return f'{kind} [{{ name: "{name}" data_type: {data_type} dims: [{dims}] {more} }}]'


def member(
    name: str = "a",
    *,
    batch: int = 4,
    x: str = "4",
    y: str = "4",
    x_type: str = "TYPE_FP32",
    y_type: str = "TYPE_FP32",
    extra: str = "",
    x_more: str = "",
    y_more: str = "",
) -> Tree:
    return python(
        extra,
        name=name,
        batch=batch,
        inputs=tensor("input", "x", x, x_type, x_more),
        outputs=tensor("output", "y", y, y_type, y_more),
    )


def one(members: Tree, *, batch: int = 4, x: str = "4", y: str = "4", first: str = ONE, extra: str = "") -> Tree:
    return ensemble(
        first,
        members=members,
        batch=batch,
        inputs=tensor("input", "x", x),
        outputs=tensor("output", "y", y),
        extra=extra,
    )


def pair(a: Tree, b: Tree, *, batch: int = 4, x: str = "4", y: str = "4") -> Tree:
    return ensemble(
        FIRST, SECOND, members={**a, **b}, batch=batch, inputs=tensor("input", "x", x), outputs=tensor("output", "y", y)
    )


FORK_A, FORK_B = step("a", "x: x", "y: y"), step("b", "x: x", "y: z")


def ends(*steps: str, a: str = "", b: str = "") -> Tree:
    """An ensemble with the outputs y and z, of members with these lines in their configs."""
    members = {**member(extra=a), **member("b", extra=b)}
    return ensemble(*steps, members=members, outputs=f"{Y} {tensor('output', 'z')}")


def version(number: int | None, *on_disk: str) -> Tree:
    """The member has these versions and serves them all."""
    members = {
        "a/config.pbtxt": config("version_policy { all { } }"),
        **{f"a/{name}/model.py": MODEL_PY for name in on_disk},
    }
    return one(members, first=step("a", "x: x", "y: y", number))


TWO_INPUTS = python(name="a", inputs=f"{X} {tensor('input', 'w')}")
OPTIONAL = python(name="a", inputs=f"{X} {tensor('input', 'w', more='optional: true')}")
TWO_OUTPUTS = python(name="a", outputs=f"{Y} {tensor('output', 'z')}")
DECOUPLED = "model_transaction_policy { decoupled: true }"

TREES: dict[str, Tree] = {
    "plain": ensemble(FIRST, SECOND),
    "one step": one(member()),
    "steps in another order": ensemble(SECOND, FIRST),
    "ensemble before its members": dict(list(ensemble(FIRST, SECOND).items())[::-1]),
    "wrong platform": ensemble(ONE, head='platform: "ensembles"'),
    "no platform": ensemble(ONE, head=""),
    "platform python": ensemble(ONE, head='backend: "python"'),
    "backend ensemble": ensemble(ONE, head='platform: "ensemble" backend: "ensemble"'),
    "backend python": ensemble(ONE, head='platform: "ensemble" backend: "python"'),
    "no scheduling": {**member(), "e/config.pbtxt": config(head='platform: "ensemble"'), "e/1/keep": ""},
    "no steps": ensemble(),
    "instance group": one(member(), extra="instance_group [{ count: 1 }]"),
    "instance group empty list": one(member(), extra="instance_group []"),
    "optimization": one(member(), extra="optimization { graph { level: 1 } }"),
    "optimization empty": one(member(), extra="optimization { }"),
    "warm-up": one(member(), extra='model_warmup [{ name: "s" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [4] zero_data: true } } }]'),
    "warm-up of another type": one(member(), extra='model_warmup [{ name: "s" batch_size: 1 inputs { key: "x" value { data_type: TYPE_INT32 dims: [4] zero_data: true } } }]'),
    "dynamic batching": one(member(), extra="dynamic_batching { }"),
    "response cache": one(member(), extra="response_cache { enable: true }"),
    "response cache with a decoupled member": one(member(extra=DECOUPLED), extra="response_cache { enable: true }"),
    "decoupled": one(member(), extra=DECOUPLED),
    "decoupled member": one(member(extra=DECOUPLED)),
    "decoupled member and ensemble": one(member(extra=DECOUPLED), extra=DECOUPLED),
    "outputs of two decoupled steps": ends(FORK_A, FORK_B, a=DECOUPLED, b=DECOUPLED),
    "outputs of a decoupled step and a plain one": ends(FORK_A, FORK_B, a=DECOUPLED),
    "outputs of two plain steps": ends(FORK_A, FORK_B),
    "outputs of a decoupled step and one after it": ends(FORK_A, step("b", "x: y", "y: z"), a=DECOUPLED),
    "outputs of a decoupled step and a decoupled one after it": ends(FORK_A, step("b", "x: y", "y: z"), a=DECOUPLED, b=DECOUPLED),
    "outputs of a plain step and a decoupled one after it": ends(FORK_A, step("b", "x: y", "y: z"), b=DECOUPLED),
    "outputs of one decoupled step after another": ends(step("a", "x: x", "y: m"), step("b", "x: m", "y: y"), step("b", "x: m", "y: z"), a=DECOUPLED),
    "outputs after two decoupled steps": ends(step("a", "x: x", "y: m"), step("a", "x: x", "y: n"), step("b", "x: m", "y: y"), step("b", "x: n", "y: z"), a=DECOUPLED),
    "outputs of a decoupled step": ensemble(
        step("a", "x: x", "y: y, z: z"),
        members=python(DECOUPLED, name="a", outputs=f"{Y} {tensor('output', 'z')}"),
        outputs=f"{Y} {tensor('output', 'z')}",
    ),
    "outputs of an ensemble with a decoupled step and of a plain step": {
        **ensemble(ONE, members=member(extra=DECOUPLED)),
        "f/config.pbtxt": config(f'ensemble_scheduling {{ {step("e", "x: x", "y: y")} {step("b", "x: x", "y: z")} }}', head='platform: "ensemble"', outputs=f"{Y} {tensor('output', 'z')}"),
        "f/1/keep": "",
        **member("b"),
    },
    "outputs of an ensemble that calls itself decoupled and of a plain step": {
        **ensemble(ONE, members=member(), extra=DECOUPLED),
        "f/config.pbtxt": config(f'ensemble_scheduling {{ {step("e", "x: x", "y: y")} {step("b", "x: x", "y: z")} }}', head='platform: "ensemble"', outputs=f"{Y} {tensor('output', 'z')}"),
        "f/1/keep": "",
        **member("b"),
    },
    "two decoupled members": pair(member(extra=DECOUPLED), member("b", extra=DECOUPLED)),
    "parameters": one(member(), extra='parameters { key: "a" value { string_value: "1" } }'),
    "runtime": one(member(), extra='runtime: "model.py"'),
    "default_model_filename": one(member(), extra='default_model_filename: "gone"'),
    "version policy": one(member(), extra="version_policy { specific { versions: [1] } }"),
    "step without model": ensemble(step("", "x: x", "y: y"), members=member()),
    "step without input map": ensemble(step("a", "", "y: y"), members=member()),
    "step without output map": ensemble(step("a", "x: x", ""), members=member()),
    "input map with an empty value": one(member(), first='step [{ model_name: "a" model_version: -1 input_map { key: "x" value: "" } output_map { key: "y" value: "y" } }]'),
    "input map with an empty key": one(member(), first='step [{ model_name: "a" model_version: -1 input_map { key: "" value: "x" } output_map { key: "y" value: "y" } }]'),
    "output map with an empty value": one(member(), first='step [{ model_name: "a" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "" } }]'),
    "tensor written twice": ensemble(ONE, step("b", "x: x", "y: y")),
    "tensor written twice, inner": ensemble(FIRST, step("a", "x: x", "y: middle"), SECOND),
    "input written by a step": ensemble(step("a", "x: x", "y: x"), step("b", "x: x", "y: y")),
    "input unused": ensemble(ONE, members=member(), inputs=f"{X} {tensor('input', 'w')}"),
    "output unwritten": ensemble(ONE, members=member(), outputs=f"{Y} {tensor('output', 'z')}"),
    "output is an input": ensemble(ONE, members=member(), outputs=f"{Y} {tensor('output', 'x')}"),
    "inner tensor read by none": ensemble(ONE, step("b", "x: x", "y: loose")),
    "inner tensor written by none": ensemble(step("a", "x: gone", "y: y"), members=member()),
    "inner tensor as an output too": ensemble(FIRST, SECOND, outputs=f"{Y} {tensor('output', 'middle')}"),
    "two members read one tensor": ensemble(FIRST, SECOND, step("b", "x: middle", "y: z"), outputs=f"{Y} {tensor('output', 'z')}"),
    "cycle": ensemble(step("a", "x: z", "y: y"), step("b", "x: y", "y: z"), inputs=""),
    "cycle beside a path": ensemble(ONE, step("a", "x: q", "y: p"), step("b", "x: p", "y: q")),
    "step onto itself": ensemble(ONE, step("b", "x: z", "y: z")),
    "member is itself": {**ensemble(step("e", "x: x", "y: y"), members={})},
    "members are each other": {
        **ensemble(step("f", "x: x", "y: y"), members={}),
        "f/config.pbtxt": config(f'ensemble_scheduling {{ {step("e", "x: x", "y: y")} }}', head='platform: "ensemble"'),
        "f/1/keep": "",
    },
    "member is an ensemble": {
        **ensemble(FIRST, SECOND),
        "f/config.pbtxt": config(f'ensemble_scheduling {{ {step("e", "x: x", "y: y")} }}', head='platform: "ensemble"'),
        "f/1/keep": "",
    },
    "member missing": ensemble(step("gone", "x: x", "y: y"), members={}),
    "second member missing": ensemble(FIRST, step("gone", "x: middle", "y: y"), members=member()),
    "member's config broken": one(text("nonsense", "a")),
    "member's config refused": one(text(config(batch=-1), "a")),
    "member without versions": one(without(member(), "a/1/model.py")),
    "member's model broken": one({**member(), "a/1/model.py": "nonsense("}),
    "member of a backend unknown": one({"a/config.pbtxt": config(head='backend: "nonsense"'), "a/1/model.py": MODEL_PY}),
    "member twice": ensemble(FIRST, step("a", "x: middle", "y: y"), members=member()),
    "namespace": ensemble(step("a", "x: x", "y: y", more='model_namespace: ""'), members=member()),
    "namespace unknown": ensemble(step("a", "x: x", "y: y", more='model_namespace: "nowhere"'), members=member()),
    "member's input unknown": one(member(), first=step("a", "x: x, v: x", "y: y")),
    "member's input unmapped": one(TWO_INPUTS),
    "member's two inputs from one tensor": one(TWO_INPUTS, first=step("a", "x: x, w: x", "y: y")),
    "member's optional input unmapped": one(OPTIONAL),
    "member's optional input mapped": one(OPTIONAL, first=step("a", "x: x, w: x", "y: y")),
    "member's output unknown": one(member(), first=step("a", "x: x", "y: y, v: z")),
    "member's output unmapped": one(TWO_OUTPUTS),
    "member's two outputs": one(TWO_OUTPUTS, first=step("a", "x: x", "y: y, z: loose")),
    "member's two outputs onto one tensor": one(TWO_OUTPUTS, first=step("a", "x: x", "y: y, z: y")),
    "optional input of the ensemble": ensemble(ONE, members=member(), inputs=tensor("input", "x", more="optional: true")),
    "optional input of the ensemble and the member": ensemble(ONE, members=member(x_more="optional: true"), inputs=tensor("input", "x", more="optional: true")),
    "no version set": version(None, "1"),
    "version 0": version(0, "1"),
    "version 0 on disk": version(0, "0", "1"),
    "version unset and 0 on disk": version(None, "0"),
    "version -1": version(-1, "1", "2"),
    "version -2": version(-2, "1"),
    "version 1": version(1, "1"),
    "version 1 of 1 and 2": version(1, "1", "2"),
    "version 9": version(9, "1"),
    "version on disk but not served": one(
        {"a/config.pbtxt": config(), "a/1/model.py": MODEL_PY, "a/2/model.py": MODEL_PY}, first=step("a", "x: x", "y: y", 1)
    ),
    "input type": one(member(x_type="TYPE_INT32")),
    "output type": one(member(y_type="TYPE_INT32")),
    "inner type": pair(member(y_type="TYPE_INT32"), member("b")),
    "inner type of both": pair(member(y_type="TYPE_INT32"), member("b", x_type="TYPE_INT32")),
    "input dims": one(member(x="5")),
    "output dims": one(member(y="5")),
    "inner dims": pair(member(y="5"), member("b")),
    "inner dims of both": pair(member(y="5"), member("b", x="5")),
    "inner rank": pair(member(y="4, 1"), member("b")),
    "input variable in the member": one(member(x="-1")),
    "input variable in the ensemble": one(member(), x="-1"),
    "input rank": one(member(x="-1, -1")),
    "output variable in the member": one(member(y="-1")),
    "output variable in the ensemble": one(member(), y="-1"),
    "inner variable in the first": pair(member(y="-1"), member("b")),
    "inner variable in the second": pair(member(), member("b", x="-1")),
    "reshape of the member": one(member(x_more="reshape { shape: [2, 2] }")),
    "reshape of the ensemble": ensemble(ONE, members=member(), inputs=tensor("input", "x", more="reshape { shape: [2, 2] }")),
    "batch below the member's": one(member(batch=8)),
    "batch above the member's": one(member(batch=2)),
    "batch above the second member's": pair(member(batch=8), member("b", batch=2)),
    "no batching, members with, dims with the batch": one(member(), batch=0, x="-1, 4", y="-1, 4"),
    "no batching, members with, dims of a batch": one(member(), batch=0, x="4, 4", y="4, 4"),
    "no batching, members with, dims without the batch": one(member(), batch=0),
    "no batching at all": one(member(batch=0), batch=0),
    "batching, member without": one(member(batch=0)),
    "batching, member without, dims with the batch": one(member(batch=0, x="-1, 4", y="-1, 4")),
    "batching, member without, dims of one": one(member(batch=0, x="1, 4", y="1, 4")),
    "no batching, first member with, second without": pair(member(), member("b", batch=0, x="-1, 4", y="-1, 4"), batch=0, x="-1, 4", y="-1, 4"),
    "batch of one": one(member(batch=1), batch=1),
    "ensemble of two versions": {**one(member()), "e/2/keep": ""},
    "no version directory": without(one(member()), "e/1/keep"),
    "version directory empty": {**without(one(member()), "e/1/keep"), "e/1": Dir()},
    "version directory a file": {**without(one(member()), "e/1/keep"), "e/1": ""},
    "version directory 01": {**without(one(member()), "e/1/keep"), "e/01/keep": ""},
    "version directory 5.tmp": {**without(one(member()), "e/1/keep"), "e/5.tmp/keep": ""},
    "version directory a dangling link": {**without(one(member()), "e/1/keep"), "e/1": Link("gone")},
    "labels absent": ensemble(ONE, members=member(), outputs=tensor("output", "y", more='label_filename: "labels.txt"')),
    "labels of the ensemble": {**ensemble(ONE, members=member(), outputs=tensor("output", "y", more='label_filename: "labels.txt"')), "e/labels.txt": "a"},
    "no inputs": ensemble(ONE, members=member(), inputs=""),
    "no outputs": ensemble(ONE, members=member(), outputs=""),
    "ragged input": ensemble(ONE, members=member(x_more="allow_ragged_batch: true"), inputs=tensor("input", "x", more="allow_ragged_batch: true")),
    "ragged input of the member only": one(member(x_more="allow_ragged_batch: true")),
    "member with sequences": one(member(extra="sequence_batching { }")),
    "member with a cache": one(member(extra="response_cache { enable: true }")),
}  # fmt: skip
