"""The rules of the layout: which package may import which, where frameworks are imported, who prints and exits."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "modelwright"

# Bottom to top. A package imports from the floors below it; packages of one floor do not import each other in a circle.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("archives", "errors", "extras", "fsops", "digest", "gpus", "programs", "progress", "suggest", "tools", "text"),
    ("triton", "charts"),
    ("project", "onnx", "server", "environments"),
    ("facts", "verification", "lint"),
    ("kinds", "variants", "config"),
    ("repository",),
    ("steps", "training", "loadtest", "remotes"),
    ("build", "bench", "repair", "fleet", "tracking"),
    ("operations", "api"),
    ("cli",),
)
FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}

FRAMEWORKS = {
    "jax", "keras", "kornia", "lightning", "onnxscript", "onnxslim", "polygraphy", "safetensors", "sentence_transformers",
    "sklearn", "tensorflow", "tensorrt", "tensorrt_rtx", "tf2onnx", "tf_keras", "tokenizers", "torch", "torch_pruning", "torchao",
    "torchvision", "transformers",
}  # fmt: skip
ONNX_LIBRARIES = {"onnx", "onnxruntime", "onnx_ir"}
# What may be imported inside functions only, and in which packages. ml_dtypes adds bfloat16 to numpy.
LATE_IMPORTS = (
    (FRAMEWORKS, {"steps", "training"}),
    (ONNX_LIBRARIES, {"steps", "onnx"}),
    ({"ml_dtypes"}, {"triton"}),
    ({"mlflow"}, {"steps", "tracking"}),
)

# Programs of their own: they run in a child process, or stock Locust runs them, and talk over their standard output.
PROGRAMS = (
    "bench/child.py",
    "build/worker.py",
    "loadtest/generator/process.py",
    "loadtest/locust/",
    "loadtest/wire/null_server.py",
    "server/backends/",
    "server/supervisor.py",
    "steps/sources/mlflow_child.py",
    "steps/plan_builder.py",
    "steps/plan_folders.py",
    "steps/plan_places/guard.py",
    "steps/plan_places/program.py",
    "steps/plan_program.py",
    "tracking/bundle_child.py",
    "tracking/child.py",
    "steps/tensorflow_program/",
    "steps/context.py",  # a step's log is the standard output of its worker
)


@dataclass(frozen=True)
class Import:
    """`module` of the tree imports `name`, as written; inside a function or a class it is `nested`."""

    module: str
    name: str
    line: int
    nested: bool


def sources() -> dict[str, Path]:
    """{dotted name: file} of every module of the package."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[Import]:
    def visit(node: ast.AST, nested: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(module, alias.name, child.lineno, nested) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module}:{child.lineno}: a relative import"
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield Import(module, full if full in SOURCES else str(child.module), child.lineno, nested)
            yield from visit(child, nested or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    yield from visit(tree_of(SOURCES[module]), False)


def own_imports() -> list[Import]:
    return [item for module in SOURCES for item in imports(module) if item.name in SOURCES and item.name != item.module]


def package_of(module: str) -> str:
    """`build` for modelwright.build.plan; '' for the package itself, whose __init__ hands out the Python API lazily."""
    return module.split(".")[1] if "." in module else ""


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def test_every_package_has_a_floor() -> None:
    assert {package_of(module) for module in SOURCES} - {""} == set(FLOOR_OF)


def test_imports_go_downwards() -> None:
    wrong = [
        f"{item.module}:{item.line} imports {item.name}"
        for item in own_imports()
        if package_of(item.module)
        and package_of(item.name)
        and FLOOR_OF[package_of(item.name)] > FLOOR_OF[package_of(item.module)]
    ]
    assert wrong == []


def test_packages_form_no_circle() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for item in own_imports():
        first, second = package_of(item.module), package_of(item.name)
        graph[first], graph[second]
        if first and second and first != second:
            graph[first].add(second)
    assert circles(graph) == []


def test_modules_form_no_circle() -> None:
    """Imports inside functions and for types count as well: they hide a circle, they do not end it."""
    graph: dict[str, set[str]] = {module: set() for module in SOURCES if module != PACKAGE}
    for item in own_imports():
        # A module that imports a name of its own package's __init__ is not a circle of ours to find: there are none.
        if PACKAGE not in (item.module, item.name):
            graph[item.module].add(item.name)
    assert circles(graph) == []


def test_frameworks_are_imported_in_steps_only_and_inside_functions() -> None:
    wrong = []
    for module in SOURCES:
        for item in imports(module):
            top = item.name.partition(".")[0]
            allowed = next((packages for names, packages in LATE_IMPORTS if top in names), None)
            if allowed is None or ".server.backends." in module:
                continue
            if package_of(module) not in allowed or not (item.nested or is_for_types(SOURCES[module], item.line)):
                wrong.append(f"{module}:{item.line} imports {item.name}")
    assert wrong == []


def is_for_types(path: Path, line: int) -> bool:
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and node.lineno < line <= node.end_lineno  # type: ignore[operator]
        for node in ast.walk(tree_of(path))
    )


# Where files of others are read: through fsops, which opens regular files only, and reads up to a bound.
READERS = ("lint/", "triton/", "onnx/", "archives.py", "repository/reading.py")


def test_files_of_others_are_read_by_fsops_only() -> None:
    wrong = []
    for module, path in SOURCES.items():
        if not path.relative_to(ROOT / PACKAGE).as_posix().startswith(READERS):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and is_plain_read(node):
                wrong.append(f"{module}:{node.lineno} {ast.unparse(node)}")
    assert wrong == []


def is_plain_read(call: ast.Call) -> bool:
    called, given = ast.unparse(call.func), [ast.unparse(item) for item in call.args]
    if (
        "files(" in called or "__file__" in called or (called == "tarfile.open" and not given)
    ):  # data of the package; what is open already
        return False
    name = called.rpartition(".")[2]
    if name in ("read_text", "read_bytes"):
        return "." in called
    if name in ("ZipFile", "is_zipfile", "load", "memmap"):
        return called.startswith(("zipfile.", "np.")) and given[:1] == ["path"]
    return name == "open" and (called in ("open", "os.open", "io.open") or given in ([], ["'r'"], ["'rb'"]))


PRINTS = {"print", "input", "click.echo", "click.secho", "sys.exit", "exit", "quit", "os._exit", "sys.stdout.write", "sys.stderr.write"}  # fmt: skip


def test_only_the_command_line_prints_or_exits() -> None:
    wrong = []
    for module, path in SOURCES.items():
        place = path.relative_to(ROOT / PACKAGE).as_posix()
        if place.startswith(("cli/", *PROGRAMS)):
            continue
        for node in ast.walk(tree_of(path)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            raised = isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc)
            if called in PRINTS or raised:
                wrong.append(f"{module}:{node.lineno} {called or 'raise SystemExit'}")  # type: ignore[attr-defined]
        wrong += [
            f"{module}:{item.line} imports {item.name}"
            for item in imports(module)
            if item.name.partition(".")[0] in ("click", "rich")
        ]
    assert wrong == []


def test_one_module_writes_to_the_terminal() -> None:
    """cli/terminal.py escapes what names of files and answers of servers may hold; nothing is printed past it."""
    wrong = []
    for module, path in SOURCES.items():
        if package_of(module) != "cli" or module.endswith(".terminal"):
            continue
        for node in ast.walk(tree_of(path)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in PRINTS - {"sys.exit"} or called.endswith(("Console", "stdout.buffer.write")):
                wrong.append(f"{module}:{node.lineno} {called}")  # type: ignore[attr-defined]
    assert wrong == []


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for module, path in SOURCES.items():
        for node in tree_of(path).body:
            is_tritons = isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel"  # the server asks for it
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not is_tritons:
                places[node.name].append(f"{module}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, [["b", "c"]]),
    ],
    ids=["two", "none", "a part"],
)
def test_circles_are_found(graph: dict[str, set[str]], expected: list[list[str]]) -> None:
    assert circles(graph) == expected
