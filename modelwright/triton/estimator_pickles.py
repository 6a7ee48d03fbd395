"""What .skops files and pickles with estimators say of themselves.

A skops file has a JSON of all its objects. The opcodes of a pickle are listed, and none is run.
"""

from __future__ import annotations

import bz2
import json
import lzma
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from modelwright.fsops import open_file

_PICKLE_BYTES = 1 << 22
_OPCODES = 200_000
_SCHEMA_BYTES = 1 << 26
_NPY_HEAD = 512
# What zipfile and a JSON of another form raise.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
)


@dataclass(frozen=True)
class SkopsHeader:
    estimator: str  # its class
    last: str  # the class that gives the answers, of a Pipeline the last step
    version: str  # of scikit-learn
    features: int  # 0: not known
    by_name: bool  # whether it was fitted on columns with names
    classes: int | None
    class_dtype: str  # of numpy: "<U7", "int64"


def skops_header(path: Path) -> SkopsHeader:
    """Raises ValueError for a file that is damaged, OSError."""
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            if archive.getinfo("schema.json").file_size > _SCHEMA_BYTES:
                raise ValueError("its schema.json is too large")
            root = json.loads(archive.read("schema.json"))
            last = _last_step(root)
            classes = _attributes(last).get("classes_", {}).get("file", "")
            shape, dtype = _npy(archive, classes) if classes else ((), "")
            first = next((node for node in _objects(root) if "n_features_in_" in _attributes(node)), {})
            features = _plain(_attributes(first).get("n_features_in_"))
            version = str(_plain(_attributes(root).get("_sklearn_version")) or "")
            names = _class(root), _class(last)
    except _DAMAGED as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return SkopsHeader(
        *names,
        version,
        features if isinstance(features, int) else 0,
        "feature_names_in_" in _attributes(first),
        shape[0] if classes and len(shape) == 1 else None,
        dtype,
    )


def _class(node: Mapping[str, Any]) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _attributes(node: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of an object of the schema."""
    content = node.get("content")
    found = content.get("content") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _plain(node: Any) -> Any:
    return json.loads(node["content"]) if isinstance(node, dict) and node.get("is_json") else None


def _last_step(root: dict[str, Any]) -> dict[str, Any]:
    steps = _attributes(root).get("steps")
    found: dict[str, Any] = _last_step(steps["content"][-1]["content"][1]) if steps else root
    return found


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """The objects of a schema, in its order."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for item in node if isinstance(node, list) else ():
        yield from _objects(item)


def _npy(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], str]:
    """(shape, dtype) of an .npy file: of its head."""
    with archive.open(name) as file:
        found = re.search(rb"'descr': '([^']+)'.*'shape': \(([\d, ]*)\)", file.read(_NPY_HEAD))
    if found is None:
        raise ValueError("an array without a head")
    shape = tuple(int(size) for size in found[2].replace(b" ", b"").split(b",") if size)
    return shape, found[1].decode()


@dataclass(frozen=True)
class PickleHeader:
    libraries: tuple[str, ...]  # that its opcodes name
    version: str  # of scikit-learn; '' where it is not among what was read
    features: int  # 0: not known
    modules: tuple[str, ...] = ()  # as `libraries`, dotted


def pickle_header(path: Path) -> PickleHeader:
    """What the opcodes of a pickle name, of the first megabytes: nothing of it is run. Raises OSError."""
    with open_file(path) as file:
        data = _decompressed(file.read(_PICKLE_BYTES))
    reader = _PickleReader()
    try:
        for opcode, argument, _ in islice(pickletools.genops(data), _OPCODES):
            reader.read(opcode.name, argument)
    except Exception:  # noqa: S110  arrays of joblib lie between opcodes, and what was read may end anywhere
        pass
    return PickleHeader(tuple(sorted(reader.libraries)), reader.version, reader.features, tuple(sorted(reader.modules)))


class _PickleReader:
    """Follows strings, which name modules, through the memo of a pickle."""

    def __init__(self) -> None:
        self.libraries: set[str] = set()
        self.modules: set[str] = set()
        self.version, self.features = "", 0
        self._memo: dict[int, str | None] = {}
        self._strings = ["", ""]
        self._pushed: str | None = None

    def read(self, name: str, argument: Any) -> None:
        if name == "GLOBAL":
            self._library(argument)
        elif name == "STACK_GLOBAL":
            self._library(self._strings[-2])
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._pushed
            return
        elif name.endswith("PUT"):
            self._memo[argument] = self._pushed
            return
        elif name.endswith("GET"):
            argument = self._memo.get(argument)
        elif isinstance(argument, int) and self._strings[-1] == "n_features_in_":
            self.features = self.features or max(argument, 0)
        self._pushed = argument if isinstance(argument, str) else None
        if self._pushed is not None:
            if self._strings[-1] == "_sklearn_version":
                self.version = self._pushed
            self._strings = [self._strings[-1], self._pushed]

    def _library(self, module: str) -> None:
        self.modules.add(module.partition(" ")[0])
        library = re.split(r"[. ]", module)[0]
        if library.isidentifier() and library not in ("builtins", "copyreg", "collections"):
            self.libraries.add(library)


_UNPACKERS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x78", zlib.decompressobj),
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lzma.LZMADecompressor),
    (b"]\x00\x00", lzma.LZMADecompressor),
)


def _decompressed(data: bytes) -> bytes:
    """The first megabytes of what was compressed."""
    make = next((make for start, make in _UNPACKERS if data.startswith(start)), None)
    if make is None:
        return data
    try:
        found: bytes = make().decompress(data, _PICKLE_BYTES)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""
    return found
