"""An import that fails in the stock container: which package it needs, and the line that adds it to the model.

A Python model runs in the server with the standard library, numpy and what was vendored. The server's error names the
first module that was not found. This module looks at the files of the version for the import itself, for others that
will fail next, and at the installed packages for the distribution that has the module.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

# What the Python backend itself makes importable, beside numpy.
_BACKEND = frozenset({"numpy", "triton_python_backend_utils", "c_python_backend_utils"})
_NOT_FOUND = re.compile(r"No module named '([\w.]+)'")
_HALTED = re.compile(r"import of ([\w.]+) halted; None in sys\.modules")
# Modules whose distribution has another name. The longest prefix counts.
_DISTRIBUTIONS = {
    "Crypto": "pycryptodome",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",  # opencv-python needs libraries of a desktop, which the container lacks
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "pymupdf",
    "google.protobuf": "protobuf",
    "jwt": "pyjwt",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


@dataclass(frozen=True)
class Import:
    """An import statement in a file of a version."""

    name: str  # "google.protobuf"
    file: str  # "model.py", relative to the version
    line: int
    at_the_top: bool  # runs whenever its file does

    @property
    def root(self) -> str:
        return self.name.partition(".")[0]


def not_found(error: str) -> str | None:
    """The module that an error message says is not there."""
    found = _NOT_FOUND.search(error)
    return found[1] if found else None


def left_standard_library(error: str) -> str | None:
    """The module that the error is about, where the container's Python has dropped it and an older one has it."""
    found = _HALTED.search(error)
    return found[1] if found else None


def imports_in(version: Path) -> Iterator[Import]:
    """The imports of every Python file of a version, files of the model itself before vendored ones."""
    files = sorted(version.rglob("*.py"), key=lambda path: (len(path.relative_to(version).parts), path))
    for file in files:
        yield from _imports_of(file, file.relative_to(version).as_posix())


def import_of(version: Path, module: str) -> Import | None:
    """The statement that asks for a module: for `google`, the one that says `google.protobuf`."""
    wanted = (found for found in imports_in(version) if f"{found.name}.".startswith(f"{module}."))
    return next(wanted, None)


def other_unavailable(version: Path, file: str, packages: str) -> list[str]:
    """Modules that a file imports at its top, and that neither the version nor the stock container has."""
    present = {path.name.partition(".")[0] for folder in (version, version / packages) for path in folder.glob("*")}
    known = _BACKEND | present | sys.stdlib_module_names
    own = _imports_of(version / file, file)
    return list(dict.fromkeys(found.name for found in own if found.at_the_top and found.root not in known))


def requirement(module: str) -> str:
    """The line of `requirements` for a module: with the version that is installed here, where one is."""
    name = _distribution(module)
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return name


def _distribution(module: str) -> str:
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        if known := _DISTRIBUTIONS.get(".".join(parts[:end])):
            return known
    providers = list(dict.fromkeys(metadata.packages_distributions().get(parts[0], [])))
    if len(providers) > 1:  # of a namespace such as `google`
        providers = [name for name in providers if _has(name, parts)]
    return providers[0] if providers else parts[0].replace("_", "-")


def _has(distribution: str, parts: Sequence[str]) -> bool:
    folder = "/".join(parts)
    files = (path.as_posix() for path in metadata.files(distribution) or ())
    return any(name == f"{folder}.py" or name.startswith(f"{folder}/") for name in files)


def _imports_of(file: Path, shown: str) -> Iterator[Import]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    at_the_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, shown, node.lineno, id(node) in at_the_top)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield Import(_from(node), shown, node.lineno, id(node) in at_the_top)


def _from(node: ast.ImportFrom) -> str:
    """`from google import protobuf` asks for google.protobuf; `from PIL import Image` needs no more than PIL said."""
    assert node.module
    joined = [f"{node.module}.{alias.name}" for alias in node.names]
    return next((name for name in joined if name in _DISTRIBUTIONS), node.module)
