"""Auto-completion of Python models: what auto_complete_config fills in, and what the server checks before and after.

Every case is asked with completion and without: a server without it never calls the function.
"""

from tests.lint.cases.build import X, Y, config, ensemble, step, without
from tests.lint.trees import MODEL_PY, Tree

EXECUTE = MODEL_PY.partition("class TritonPythonModel:\n")[2]
HEAD = "import triton_python_backend_utils as pb_utils\n\n\n"
WHOLE = """\
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [4]})
"""
TENSORS = "".join(WHOLE.splitlines(keepends=True)[2:])


def completing(lines: str = WHOLE, *, head: str = HEAD, bases: str = "", indent: str = "") -> str:
    """A model.py whose auto_complete_config runs these lines."""
    method = f"    @staticmethod\n    def auto_complete_config(config):\n{lines}        return config\n\n"
    return f"{head}class TritonPythonModel{bases}:\n{method}{EXECUTE}"


AUTO = completing()
NOTHING = completing("")
BASE = f"class Base:\n    @staticmethod\n    def auto_complete_config(config):\n{WHOLE}        return config\n\n\n"
CHILD = f"{HEAD}class TritonPythonModel(Base):\n{EXECUTE}"
ASSIGNED = f"{MODEL_PY}\n\ndef complete(config):\n{WHOLE.replace('        ', '    ')}    return config\n\n\n"


def model(text: str | None, code: str = AUTO, name: str = "m") -> Tree:
    """A Python model with this config, or without one."""
    files = {f"{name}/1/model.py": code}
    return files if text is None else {f"{name}/config.pbtxt": text, **files}


def bare(extra: str = "", code: str = AUTO, name: str = "m", **more: str) -> Tree:
    """A model whose config names its backend and no more."""
    return {**model(f'backend: "python"\n{extra}', code, name), **more}


def inputs(fields: str) -> str:
    return f'input [{{ name: "x" {fields} }}]'


def one(members: Tree, *, batch: int = 4, first: str = step("a", "x: x", "y: y")) -> Tree:
    return ensemble(first, members=members, batch=batch)


WARMUP = 'model_warmup [{{ name: "s" batch_size: {} inputs {{ key: "{}" value {{ data_type: TYPE_FP32 dims: [4] zero_data: true }} }} }}]'
COUNT = 'batch_input [{ kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" }]'
SCATTER = 'batch_output [{ target_name: "y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "x" }]'

TREES: dict[str, Tree] = {
    "no config": model(None),
    "no config, nothing completes": model(None, MODEL_PY),
    "no config, completes nothing": model(None, NOTHING),
    "empty config": model(""),
    "empty config, nothing completes": model("", MODEL_PY),
    "backend alone": bare(),
    "backend alone, nothing completes": bare(code=MODEL_PY),
    "whole config": model(config()),
    "no data type": bare(inputs("dims: [4]")),
    "no data type, nothing completes": bare(inputs("dims: [4]"), MODEL_PY),
    "no dims": bare(inputs("data_type: TYPE_FP32")),
    "no dims, nothing completes": bare(inputs("data_type: TYPE_FP32"), MODEL_PY),
    "name alone": bare(inputs("")),
    "name alone, nothing completes": bare(inputs(""), MODEL_PY),
    "output without data type": bare('output [{ name: "y" dims: [4] }]'),
    "no name": bare("input [{ data_type: TYPE_FP32 dims: [4] }]"),
    "dim 0": bare('input [{ name: "w" data_type: TYPE_FP32 dims: [0] }]'),
    "reshape without dims": bare(inputs("reshape { shape: [2, 2] }")),
    "reshape without dims, uneven": bare('input [{ name: "w" data_type: TYPE_FP32 dims: [4] reshape { shape: [3] } }]'),
    "format without dims": bare(inputs("format: FORMAT_NCHW"), completing(WHOLE.replace("[4]})", "[3, 4, 4]})", 1))),
    "empty reshape": bare(inputs("dims: [1] reshape { shape: [] }"), completing(WHOLE.replace("[4]})", "[1]})", 1))),
    "empty reshape, nothing completes": bare(inputs("data_type: TYPE_FP32 dims: [1] reshape { shape: [] }"), MODEL_PY),
    "negative max_batch_size": bare("max_batch_size: -1"),
    "preferred size": bare("dynamic_batching { preferred_batch_size: [2] }"),
    "preferred size, oldest": bare("sequence_batching { oldest { preferred_batch_size: [2] } }"),
    "dynamic batching": bare("dynamic_batching { }"),
    "dynamic batching, nothing completes": bare("dynamic_batching { }", MODEL_PY),
    "sequence batching": bare("sequence_batching { }", completing("        config.set_max_batch_size(4)\n" + TENSORS)),
    "batch_input": bare(COUNT),
    "batch_input, nothing completes": bare(COUNT, MODEL_PY),
    "batch_output": bare(SCATTER),
    "batch_output, nothing completes": bare(SCATTER, MODEL_PY),
    "warm-up": bare(WARMUP.format(1, "x")),
    "warm-up, nothing completes": bare(WARMUP.format(1, "x"), MODEL_PY),
    "warm-up of a whole batch": bare(WARMUP.format(4, "x")),
    "warm-up of a whole batch, nothing completes": bare(WARMUP.format(4, "x"), MODEL_PY),
    "warm-up of an input without dims": bare(f'{inputs("")}\n{WARMUP.format(1, "x")}'),
    "warm-up of a batch beyond the one written": model(config(WARMUP.format(4, "x"), batch=2)),
    "labels": bare('output [{ name: "y" label_filename: "labels.txt" }]', **{"m/labels.txt": "a"}),
    "labels absent": bare('output [{ name: "y" label_filename: "labels.txt" }]'),
    "cache of a decoupled model": bare("response_cache { enable: true } model_transaction_policy { decoupled: true }"),
    "default_model_filename": without(bare('default_model_filename: "main.py"', **{"m/1/main.py": AUTO}), "m/1/model.py"),
    "default_model_filename, nothing completes": without(
        bare(f'default_model_filename: "main.py" {inputs("")}', **{"m/1/main.py": MODEL_PY}), "m/1/model.py"
    ),
    "two versions, both complete": bare(f"version_policy {{ all {{ }} }} {inputs('')}", **{"m/2/model.py": AUTO}),
    "two versions, the first completes": bare(f"version_policy {{ all {{ }} }} {inputs('')}", **{"m/2/model.py": MODEL_PY}),
    "two versions, the second completes": bare(f"version_policy {{ all {{ }} }} {inputs('')}", MODEL_PY, **{"m/2/model.py": AUTO}),
    "inherited": bare(inputs(""), BASE + CHILD),
    "inherited by name of a module": bare(inputs(""), f"import base\n\n{CHILD.replace('(Base)', '(base.Base)')}", **{"m/1/base.py": BASE}),
    "inherited from another file": bare(inputs(""), f"from base import Base\n{CHILD}", **{"m/1/base.py": BASE}),
    "inherited, nothing completes": bare(inputs(""), f"class Base:\n    pass\n\n\n{CHILD}"),
    "another class completes": bare(inputs(""), f"{BASE}{MODEL_PY}"),
    "in an if": bare(inputs(""), AUTO.replace("    @staticmethod", "    if True:\n     @staticmethod").replace("    def auto", "     def auto").replace("    def auto", "    def auto")),
    "assigned to the class": bare(inputs(""), f"{ASSIGNED}TritonPythonModel.auto_complete_config = complete\n"),
    "set on the class": bare(inputs(""), f'{ASSIGNED}setattr(TritonPythonModel, "auto_complete" + "_config", complete)\n'),
    "not assigned": bare(inputs(""), ASSIGNED),
    "assigned in the class": bare(inputs(""), f"{ASSIGNED}{MODEL_PY.replace('    def execute', '    auto_complete_config = staticmethod(complete)' + chr(10) * 2 + '    def execute')}"),
    "a lambda": bare(inputs(""), MODEL_PY.replace("    def execute", "    auto_complete_config = lambda config: config.add_input({'name': 'x', 'data_type': 'TYPE_FP32', 'dims': [4]}) or config\n\n    def execute")),
    "the class by another name": bare(inputs(""), AUTO.replace("class TritonPythonModel", "class Model") + "\n\nTritonPythonModel = Model\n"),
    "the class imported": bare(inputs(""), "from other import TritonPythonModel\n", **{"m/1/other.py": AUTO}),
    "with a decorator of the class": bare(inputs(""), f"{ASSIGNED}def decorated(cls):\n    cls.auto_complete_config = complete\n    return cls\n\n\n@decorated\n{MODEL_PY.partition(HEAD)[2]}"),
    "named in a comment": bare(inputs(""), f"{MODEL_PY}    # auto_complete_config is not here\n"),
    "a syntax error": bare(inputs(""), f"{AUTO}\nthis is no Python\n"),
    "raises": bare("", completing("        raise ValueError('no')\n")),
    "completes nothing of an input": bare(inputs(""), NOTHING),
    "ensemble": one(bare(name="a")),
    "ensemble, nothing completes": one(bare(code=MODEL_PY, name="a")),
    "ensemble, no config": one(model(None, name="a")),
    "ensemble, no config, nothing completes": one(model(None, MODEL_PY, name="a")),
    "ensemble, no outputs, nothing completes": one(model(config(outputs=""), MODEL_PY, "a")),
    "ensemble, input without dims": one(bare(inputs(""), name="a")),
    "ensemble, batch raised": one(model(config(batch=2), name="a")),
    "ensemble, batch below": one(model(config(batch=2), MODEL_PY, "a")),
    "ensemble, other dims": one(model(config(inputs=X.replace("[4]", "[5]")), completing(""), "a")),
    "ensemble, other type": one(model(config(outputs=Y.replace("FP32", "INT32")), completing(""), "a")),
    "ensemble, input not mapped": one(model(config(inputs=f"{X} {X.replace('x', 'w', 1)}"), completing(""), "a")),
    "ensemble without batching, member with": ensemble(
        step("a", "x: x", "y: y"),
        members=bare(name="a"),
        batch=0,
        inputs=X.replace("[4]", "[-1, 4]"),
        outputs=Y.replace("[4]", "[-1, 4]"),
    ),
    "ensemble, decoupled": one(bare(name="a", code=completing(WHOLE + '        config.set_model_transaction_policy({"decoupled": True})\n'))),
}  # fmt: skip
