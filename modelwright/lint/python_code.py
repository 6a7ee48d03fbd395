"""A Python model's file, read as text: what it says of itself. None of its code runs.

Code can do anything. Where the text leaves a question open, the answer is the one that makes no rule speak.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from modelwright.fsops import read_file

CLASS = "TritonPythonModel"
COMPLETES = "auto_complete_config"
_LARGEST_BYTES = 1_000_000
_INDIRECT = re.compile(rb"import\s*\*|\bexec\b|\bglobals\b|\bsetattr\b|__getattr__|\bsys\.modules\b")
_POLICY = re.compile(rb"decoupled|transaction_policy")
_DYNAMIC = ("eval", "exec", "globals", "locals", "setattr", "vars")
_BLOCKS = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.Match)


@dataclass(frozen=True)
class PythonCode:
    """The text of a model's file; None where it cannot be read, or is too large to be."""

    text: bytes | None

    @classmethod
    def read(cls, path: Path) -> PythonCode:
        try:
            return cls(read_file(path, _LARGEST_BYTES))
        except OSError:
            return cls(None)

    def problem(self, target_python: str) -> str:
        """Why it cannot be imported by the Python of this version, such as "3.12"; '' where it may be."""
        if self.text is None:
            return ""  # missing: another rule reports it
        if CLASS.encode() not in self.text and not _INDIRECT.search(self.text):
            return f"the file has no class {CLASS}"
        if sys.version_info < tuple(int(part) for part in target_python.split(".")):
            return ""  # the file may use the syntax of a later Python
        _, problem = self._parsed
        return problem

    @cached_property
    def _parsed(self) -> tuple[ast.Module | None, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as an invalid escape, which still parses
                return ast.parse(self.text or b""), ""
        except SyntaxError as error:
            return None, f"line {error.lineno}: {error.msg}"
        except (ValueError, RecursionError, MemoryError) as error:
            return None, f"the file is not valid Python: {error or type(error).__name__}"

    @cached_property
    def may_complete(self) -> bool:
        """Whether its class may have auto_complete_config, by which it completes its config."""
        if self.text is None or self._parsed[0] is None:
            return True
        return _may_have(self._parsed[0], COMPLETES)

    @property
    def may_set_policy(self) -> bool:
        """Whether it may make itself decoupled while it completes its config."""
        if not self.may_complete or self.text is None:
            return self.may_complete
        return COMPLETES.encode() not in self.text or bool(_POLICY.search(self.text))


def _may_have(tree: ast.Module, attribute: str) -> bool:
    """Whether the class of the model may have this attribute."""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if CLASS not in classes or _is_bound_again(tree) or _is_set_from_outside(tree, attribute):
        return True
    waiting, seen = [CLASS], set[str]()
    while waiting:
        node = classes[name := waiting.pop()]
        if name in seen:
            continue
        seen.add(name)
        bases = [base.id if isinstance(base, ast.Name) else "" for base in node.bases]
        bases = [base for base in bases if base != "object"]
        if node.decorator_list or node.keywords or attribute in _bound(node.body):
            return True
        if not classes.keys() >= set(bases) or _is_dynamic(node.body):
            return True
        waiting += bases
    return False


def _is_bound_again(tree: ast.Module) -> bool:
    """Whether something else than a class definition gives the model's class its name."""
    others = [node for node in tree.body if not isinstance(node, ast.ClassDef)]
    return CLASS in _bound(others)


def _is_set_from_outside(tree: ast.Module, attribute: str) -> bool:
    named = any(
        (isinstance(node, ast.Attribute) and node.attr == attribute and isinstance(node.ctx, ast.Store))
        or (isinstance(node, ast.Constant) and node.value == attribute)
        for node in ast.walk(tree)
    )
    return named or _is_dynamic(node for node in tree.body if not isinstance(node, ast.ClassDef))


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the body does, those of its blocks included, but not those of functions and classes."""
    for node in body:
        yield node
        if isinstance(node, _BLOCKS):
            inner = [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
            yield from inner


def _bound(body: Iterable[ast.stmt]) -> set[str]:
    """Names that the statements of a body may bind."""
    found: set[str] = set()
    for node in _statements(body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            names = (child for child in ast.walk(node) if isinstance(child, ast.Name))
            found |= {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return found


def _is_dynamic(body: Iterable[ast.stmt]) -> bool:
    """Whether statements call what can bind any name."""
    plain = [
        node
        for node in _statements(body)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    calls = (child for node in plain for child in ast.walk(node) if isinstance(child, ast.Call))
    return any(isinstance(call.func, ast.Name) and call.func.id in _DYNAMIC for call in calls)
