"""What PyTorch's files say of themselves: arguments, shapes and types, read from their headers without PyTorch.

torch.save and torch.jit.save write zip archives. `data.pkl` in them is a pickle. Here it is read by an unpickler that
knows no class and calls nothing: each tensor becomes its type and shape, all else is left out.
"""

from __future__ import annotations

import ast
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.fsops import open_file

_LARGEST_PART = 200_000_000
_TYPES = {
    "FloatStorage": "FP32", "DoubleStorage": "FP64", "HalfStorage": "FP16", "BFloat16Storage": "BF16",
    "LongStorage": "INT64", "IntStorage": "INT32", "ShortStorage": "INT16", "CharStorage": "INT8",
    "ByteStorage": "UINT8", "BoolStorage": "BOOL",
}  # fmt: skip
_NESTED = ("state_dict", "model_state_dict")  # where checkpoints of trainers keep the weights
# Classes that are tensors, or containers of them: "torch.FloatStorage", "torch._utils._rebuild_tensor_v2".
_HARMLESS = re.compile(
    r"torch\.\w+|torch\.(_utils|_tensor|storage|serialization|nn\.parameter)\.\w+|collections\.\w+|__torch__\..*"
)


@dataclass(frozen=True)
class TorchTensor:
    """`dtype` is Triton's, "" for one that Triton does not have; a dimension that varies is a name, or -1."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class ScriptHeader:
    """A TorchScript file."""

    arguments: tuple[tuple[str, str], ...]  # of forward: ("image", "Tensor"); () where the code cannot be read
    returns: str  # "Tensor", "Tuple[Tensor, Tensor]"
    traced: tuple[TorchTensor, ...] = ()  # what it was traced with, where it was traced
    weights: tuple[TorchTensor, ...] = ()


@dataclass(frozen=True)
class CheckpointHeader:
    """A file of torch.save."""

    weights: tuple[TorchTensor, ...]
    inside: str = ""  # the key that holds them, where they are not all of the file
    classes: tuple[str, ...] = ()  # what else it holds, "model.Net": to load these runs code
    lightning: str = ""  # the version of Lightning that wrote it


def script_header(path: Path) -> ScriptHeader:
    """Of a TorchScript file. Raises ValueError or OSError for one that is damaged."""
    with _archive(path) as archive:
        names, root = archive.namelist(), root_of(archive)
        unpickler = _Headers(_part(archive, f"{root}data.pkl"))
        weights = tuple(_named_tensors(unpickler.content(), ""))
        module, _, name = (unpickler.classes[0] if unpickler.classes else "").rpartition(".")
        code = f"{root}code/{module.replace('.', '/')}.py"
        arguments, returns = _forward(_part(archive, code), name) if code in names else ((), "")
        traced = f"{root}traced_inputs.pkl"
        given = _traced(_Headers(_part(archive, traced)).content(), arguments) if traced in names else ()
        return ScriptHeader(arguments, returns, given, weights)


def checkpoint_header(path: Path) -> CheckpointHeader:
    """Of a file that torch.save wrote as a zip archive. Raises ValueError or OSError for one that is damaged."""
    with _archive(path) as archive:
        unpickler = _Headers(_part(archive, f"{root_of(archive)}data.pkl"))
        content = unpickler.content()
    others = tuple(dict.fromkeys(name for name in unpickler.classes if not _HARMLESS.fullmatch(name)))
    if not isinstance(content, Mapping):
        return CheckpointHeader((), classes=others)
    inside = next((key for key in _NESTED if isinstance(content.get(key), Mapping)), "") or _nested_in(content)
    held = content[inside] if inside else content
    weights = tuple(value.named(str(key)) for key, value in held.items() if isinstance(value, _Tensor))
    return CheckpointHeader(weights, inside, others, str(content.get("pytorch-lightning_version", "")))


def _nested_in(content: Mapping[Any, Any]) -> str:
    """The key of the weights, such as `model`, where none lie beside it. An identifier: code is written with it."""
    if isinstance(content, _Object) or _has_tensors(content):
        return ""
    names = [key for key in content if isinstance(key, str) and key.isidentifier()]
    return next((name for name in names if _has_tensors(content[name])), "")


def _has_tensors(part: object) -> bool:
    return isinstance(part, Mapping) and any(isinstance(value, _Tensor) for value in part.values())


def root_of(archive: zipfile.ZipFile) -> str:
    """The folder that all of an archive of torch lies in: "model/". Raises ValueError."""
    names = archive.namelist()
    root = names[0].partition("/")[0] + "/" if names else ""
    if not all(name.startswith(root) for name in names):
        raise ValueError("it is no archive of PyTorch: its entries do not lie in one folder")
    return root


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with open_file(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(str(error)) from None
        with archive:
            yield archive


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        if archive.getinfo(name).file_size > _LARGEST_PART:
            raise ValueError(f"'{name}' is larger than a header is")
        return archive.read(name)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"'{name}': {error}") from None


# --- code -------------------------------------------------------------------------------------------------------------


def _forward(code: bytes, name: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """Arguments and result of a class's forward. TorchScript is a subset of Python."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return (), ""
    for made in (item for item in tree.body if isinstance(item, ast.ClassDef) and item.name == name):
        for function in made.body:
            if isinstance(function, ast.FunctionDef) and function.name == "forward":
                arguments = function.args.args[1:]
                found = tuple((item.arg, _unparsed(item.annotation)) for item in arguments)
                return found, _unparsed(function.returns)
    return (), ""


def _unparsed(annotation: ast.expr | None) -> str:
    return ast.unparse(annotation) if annotation is not None else "Tensor"


def _traced(content: object, arguments: Sequence[tuple[str, str]]) -> tuple[TorchTensor, ...]:
    values = content.get("forward") if isinstance(content, Mapping) else None
    if not isinstance(values, list) or len(values) != len(arguments):
        return ()
    if not all(isinstance(item, _Tensor) for item in values):
        return ()
    return tuple(item.named(name) for item, (name, _) in zip(values, arguments, strict=True))


# --- pickles ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int | str, ...]

    def named(self, name: str) -> TorchTensor:
        return TorchTensor(name, self.dtype, self.shape)


class _Object(dict[Any, Any]):
    """In place of whatever a pickle makes: it keeps the attributes and entries that it is given."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(part)

    def append(self, item: Any) -> None:
        self[len(self)] = item

    def extend(self, items: Any) -> None:
        for item in items:
            self.append(item)

    def __call__(self, *arguments: Any) -> _Object:
        return _Object()

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


class _Plain(dict[Any, Any]):
    """In place of an OrderedDict, whose attributes are not kept."""

    def __setstate__(self, state: Any) -> None:
        """A state dict's has the versions of its modules."""


class _Headers(pickle._Unpickler):
    """Reads a pickle of torch without any class of it: `classes` are the names that it asked for, in order.

    It is the unpickler in Python: the one in C takes gigabytes for a pickle of a few bytes that says so.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self.classes: list[str] = []

    def content(self) -> Any:
        """Raises ValueError for a damaged pickle."""
        try:
            return self.load()
        except Exception as error:  # damaged ones fail in any way
            raise ValueError(f"its pickle is damaged: {type(error).__name__}: {error}") from None

    def find_class(self, module: str, name: str, /) -> Any:
        full = f"{module}.{name}"
        self.classes.append(full)
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return _tensor
        if full == "torch._utils._rebuild_parameter":
            return lambda tensor, *_: tensor
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if full == "torch.jit._pickle.restore_type_tag":
            return lambda value, _: value
        # A new class for each: a pickle can give a class attributes.
        return type(name, (_Plain if full == "collections.OrderedDict" else _Object,), {})

    def persistent_load(self, pid: Any) -> Any:
        """A storage: ("storage", its type, key, device, elements)."""
        return pid[1] if isinstance(pid, tuple) and len(pid) > 1 and isinstance(pid[1], str) else ""


def _tensor(storage: Any, offset: Any, size: Any, *_: Any) -> _Tensor:
    shape = tuple(int(dim) for dim in size) if isinstance(size, tuple | list) else ()
    return _Tensor(storage if isinstance(storage, str) else "", shape)


def _named_tensors(value: object, prefix: str) -> Iterator[TorchTensor]:
    """The tensors of a module and of its parts, in order, as a state dict names them."""
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(item, _Tensor):
            yield item.named(name)
        elif isinstance(item, _Object) and item is not value:
            yield from _named_tensors(item, name)
