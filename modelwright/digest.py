"""SHA-256 of files, sets of files and canonical JSON; and the imports of builder code, read from its text.

`Fingerprints` remembers results by path, size, mtime and inode: a build that changes nothing reads no file twice.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.errors import SpecError, StepError
from modelwright.fsops import open_file, read_file, write_cache

_CHUNK = 1 << 20
# A file changed this recently can change again without a new timestamp, so its digest is not remembered.
_RACY_NS = 2_000_000_000


def canonical(value: Any) -> bytes:
    """JSON with one form per value: keys sorted, no spaces, UTF-8. Raises ValueError for NaN and infinities."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def parse_json(data: bytes | str) -> Any:
    """A JSON document of any origin. Raises ValueError for what is none, also for one that is nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def copy_hashed(source: Path, target: Path) -> str:
    """Copy a file of any size. Returns the SHA-256 of the bytes that were copied."""
    digest = hashlib.sha256()
    with open_file(source) as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


def tree_digest(files: Mapping[str, str]) -> str:
    """The digest of a set of files: relative names (with '/') and the SHA-256 of each. Empty folders do not count."""
    return sha256(canonical(dict(files)))


def list_tree(folder: Path) -> dict[str, Path]:
    """Every file below a folder by relative name, in order. Links to folders are not followed."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Code:
    """The imports and names of a Python file, read without running it."""

    imports: tuple[str, ...]  # dotted names, relative ones with their dots
    names: tuple[str, ...]  # bound at module level
    star: bool  # has `from x import *`, so not all names are known

    def defines(self, name: str) -> bool:
        return self.star or name in self.names


class Fingerprints:
    """Digests of files, and the imports of Python files, remembered in one JSON file between runs."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, list[Any]] = {}  # path → [size, mtime_ns, inode, sha256, what was found]
        self._changed = False
        self.looked_at: set[Path] = set()  # the files that were asked for since
        with contextlib.suppress(OSError, ValueError):  # a damaged cache is an empty one
            loaded = parse_json(read_file(cache))
            self._known = loaded if isinstance(loaded, dict) else {}

    def file(self, path: Path) -> str:
        return str(self._entry(path)[3])

    def code(self, path: Path, shown: str) -> Code:
        """Parse a Python file. Raises SpecError with the line of a syntax error; `shown` is its name in messages."""
        imports, names, star = self.found(path, lambda file: _read_code(file, shown))
        return Code(tuple(imports), tuple(names), star)

    def found(self, path: Path, read: Callable[[Path], list[Any]]) -> list[Any]:
        """What `read` finds in a file, as JSON has it: remembered while the file is the same. One reader a file."""
        entry = self._entry(path)
        if entry[4] is None:
            entry[4] = read(path)
            self._changed = True
        return list(entry[4])

    def save(self) -> None:
        """Write the cache."""
        if self._changed:
            write_cache(self._cache, json.dumps({path: entry for path, entry in self._known.items() if entry[1]}))

    def _entry(self, path: Path) -> list[Any]:
        self.looked_at.add(path)
        try:
            stat = path.stat()
            known = self._known.get(str(path))
            if known is not None and known[:3] == [stat.st_size, stat.st_mtime_ns, stat.st_ino]:
                return known
            settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _RACY_NS
            entry = [stat.st_size, stat.st_mtime_ns if settled else 0, stat.st_ino, sha256_file(path), None]
        except OSError as error:
            raise StepError(f"{path}: cannot be read: {error.strerror}") from error
        self._known[str(path)] = entry
        self._changed = True
        return entry


def _read_code(path: Path, shown: str) -> list[Any]:
    try:
        tree = ast.parse(read_file(path), filename=shown)
    except SyntaxError as error:
        raise SpecError(f"{shown}:{error.lineno}: {error.msg}", (error.text or "").strip()) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{shown}: cannot be parsed as Python: {error}") from None
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # `from package import name`: the name may be a module, which is then imported, too.
            joined = [f"{base}{'' if base.endswith('.') else '.'}{alias.name}" for alias in node.names]
            imports += [base, *joined]
    return [sorted({name for name in imports if name.strip(".")}), *_bound_names(tree)]


def _bound_names(tree: ast.Module) -> tuple[list[str], bool]:
    names: set[str] = set()
    star = False
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue  # names inside are local
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            star = star or any(alias.name == "*" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))
    return sorted(names), star


def module_file(folder: Path, module: str) -> Path | None:
    """The file of a module in a builder's folder; None for a module from elsewhere."""
    base = folder.joinpath(*module.split("."))
    for candidate in (base.with_name(base.name + ".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def code_closure(module: str, folder: Path, shown: str, fingerprints: Fingerprints) -> dict[str, str]:
    """{relative name: SHA-256} of a module and all modules of this folder that it imports, also indirectly.

    Imports are read from the text. An import whose name is computed at run time is not found here; the worker refuses
    it (`steps/entry.py`).
    """
    found: dict[str, str] = {}
    waiting = [module]
    visited: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in visited:
            continue
        visited.add(name)
        # Importing a.b runs a/__init__.py first.
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        file = module_file(folder, name)
        if file is None:
            continue
        relative = file.relative_to(folder).as_posix()
        found[relative] = fingerprints.file(file)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        for imported in fingerprints.code(file, f"{shown}/{relative}").imports:
            waiting.append(_absolute(imported, package))
    return found


def _absolute(name: str, package: str) -> str:
    level = len(name) - len(name.lstrip("."))
    if level == 0:
        return name
    parts = package.split(".") if package else []
    kept = parts[: len(parts) - (level - 1)]
    return ".".join([*kept, name[level:]])
