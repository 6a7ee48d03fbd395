"""Programs that torch.export.save wrote (.pt2): their tensors, and what in them could run code.

torch.export.load evaluates the program's expressions of sizes as Python, executes its guards, resolves its operators by
name and reads pickles: PyTorch says not to load a file that one does not trust. All of these are in its JSON, so a file
can be looked at first: `program_risks` names what is no arithmetic, no operator of PyTorch, or a pickle of more than
tensors.
"""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.fsops import open_file
from modelwright.triton.torch_archives import TorchTensor, root_of

_LARGEST_JSON = 500_000_000
_SCALAR_TYPES = {  # torch._export.serde.schema.ScalarType
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64", 12: "BOOL", 13: "BF16",
    28: "UINT16", 44: "UINT32", 45: "UINT64",
}  # fmt: skip
_SYMBOL = re.compile(r"Symbol\('(\w+)'")
_TARGETS = re.compile(
    r"torch\.ops\.(aten|prim|prims|quantized|quantized_decomposed|torchvision|higher_order)(\.\w+)+"
    r"|torch\._?sym_\w+|math\.[a-z]\w*"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem|lshift|rshift)"
)
_TOUCHES_FILES = re.compile(r"\.(from_file|save)\b")
_NODES = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.Tuple, ast.Subscript, ast.Attribute, ast.IfExp,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_ATTRIBUTES = {"size", "stride", "dim", "numel", "storage_offset", "shape", "ndim"}
# Of sympy, and of torch.utils._sympy.functions.
_FUNCTIONS = {
    "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "floor", "ceiling",
    "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan",
    "GreaterThan", "And", "Or", "Not", "Piecewise", "ExprCondPair", "FloorDiv", "ModularIndexing", "Where", "PythonMod",
    "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv",
    "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal",
    "ToFloat", "Identity", "max", "min", "abs", "int", "float", "round",
}  # fmt: skip


@dataclass(frozen=True)
class Program:
    """What a .pt2 file declares."""

    inputs: tuple[TorchTensor, ...]  # a size that varies is a name
    outputs: tuple[TorchTensor, ...]
    ranges: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)  # name of a size → (least, most)
    risks: tuple[str, ...] = ()  # what runs code when it is loaded
    pickles: tuple[str, ...] = ()  # entries of the archive that must hold tensors only
    training: str = ""  # an operator that behaves as in training, "dropout"


def read_program(path: Path) -> Program:
    """Of a file that torch.export.save wrote. Raises ValueError or OSError for one that is damaged, or too old."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return _program(archive)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RecursionError) as error:
        raise ValueError(str(error)) from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"its description of the graph is damaged: {type(error).__name__} {error}") from None


def _program(archive: zipfile.ZipFile) -> Program:
    root, names = root_of(archive), archive.namelist()
    models = [name for name in names if name.startswith(f"{root}models/")]
    if models != [f"{root}models/model.json"]:
        raise ValueError(f"it holds {len(models)} programs, expected one, models/model.json")
    document = _json(archive, models[0])
    graph = document["graph_module"]["graph"]
    sides = document["graph_module"]["signature"]
    pickles, risks = _pickles(archive, root)
    return Program(
        tuple(_tensors(sides["input_specs"], "user_input", graph)),
        tuple(_tensors(sides["output_specs"], "user_output", graph)),
        {name: (limits["min_val"], limits["max_val"]) for name, limits in document["range_constraints"].items()},
        (*risks, *_risks(document)),
        pickles,
        _training(document),
    )


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _LARGEST_JSON:
        raise ValueError(f"'{name}' is larger than a description of a graph is")
    return json.loads(archive.read(name))


def _tensors(specs: Sequence[Any], side: str, graph: Any) -> Iterator[TorchTensor]:
    for spec in specs:
        argument = spec.get(side, {}).get("arg", {})
        if "as_tensor" not in argument:
            continue
        name = argument["as_tensor"]["name"]
        value = graph["tensor_values"][name]
        yield TorchTensor(name, _SCALAR_TYPES.get(value["dtype"], ""), tuple(map(_size, value["sizes"])))


def _size(size: Mapping[str, Any]) -> int | str:
    if "as_int" in size:
        return int(size["as_int"])
    symbol = _SYMBOL.match(size["as_expr"]["expr_str"])
    return symbol[1] if symbol else -1


# --- what runs code ---------------------------------------------------------------------------------------------------


def _pickles(archive: zipfile.ZipFile, root: str) -> tuple[tuple[str, ...], list[str]]:
    """Entries that are read as pickles, and what of the others is code."""
    names = archive.namelist()
    found = [name for name in names if name.endswith(".pt")]
    risks = [f"'{name}' is compiled code" for name in names if "/aotinductor/" in name][:1]
    for part in ("weights", "constants"):
        config = f"{root}data/{part}/model_{part}_config.json"
        entries = _json(archive, config)["config"].values() if config in names else ()
        for entry in entries:
            path = f"{root}data/{part}/{entry['path_name']}"
            if entry["path_name"].startswith(("custom_obj_", "opaque_obj_")):
                risks.append(f"'{path}' is a pickle of an object")
            elif entry["use_pickle"]:
                found.append(path)
    return tuple(dict.fromkeys(found)), risks


def _risks(document: Any) -> Iterator[str]:
    for guard in document.get("guards_code") or ():
        if not _is_arithmetic(guard):
            yield f"a guard is no comparison of sizes: {guard!r:.80}"
    for key, value in _strings(document):
        if key == "expr_str" and not _is_arithmetic(value):
            yield f"a size is no arithmetic: {value!r:.80}"
        if key == "target" and (not _TARGETS.fullmatch(value) or _TOUCHES_FILES.search(value)):
            yield f"an operator is not one of PyTorch's on tensors: {value!r:.80}"


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """Every (key, text) of a JSON document, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str):
                yield key, item
            else:
                yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _is_arithmetic(text: object) -> bool:
    """Whether a Python expression computes with sizes and nothing else."""
    try:
        tree = ast.parse(text if isinstance(text, str) else "", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return all(_is_harmless(node, id(node) in called) for node in ast.walk(tree))


def _is_harmless(node: ast.AST, is_called: bool) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr in _ATTRIBUTES
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS if is_called else "__" not in node.id
    if is_called:
        return False
    return isinstance(node, _NODES)


def _training(document: Any) -> str:
    """An operator that was recorded as in training; "" for a program that was exported in eval mode."""
    for node in document["graph_module"]["graph"]["nodes"]:
        name = str(node.get("target", ""))
        flag = "train" if ".dropout." in name else "training" if ".batch_norm." in name else ""
        values = {item.get("name"): item.get("arg", {}) for item in node.get("inputs", ())}
        if flag and values.get(flag, {}).get("as_bool") is True:
            return name.split(".")[3]
    return ""
