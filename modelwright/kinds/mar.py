"""TorchServe's model archives: what torch-model-archiver writes, unpacked, and what Triton does not do of it.

MAR-INF/MANIFEST.json    names the files below
<serializedFile>         TorchScript; or the weights of a class in <modelFile>
<modelFile>              Python: the class, for weights
<handler>.py             Python: what is done before and after the model; or the name of one of TorchServe's own
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelwright.errors import StepError
from modelwright.fsops import read_text
from modelwright.triton.file_types import TORCHSCRIPT, file_type

MANIFEST = "MAR-INF/MANIFEST.json"
LABELS = "index_to_name.json"
_AGAIN = "archive the model again: torch-model-archiver"
_LARGEST_TEXT = 10_000_000
_IMAGES = (
    "before the model: resize an RGB image's shorter side to 256, crop the central 224 x 224, scale to 0..1, put "
    "channels first, subtract the means (0.485, 0.456, 0.406), divide by (0.229, 0.224, 0.225)"
)
# What TorchServe's own handlers do around the model (ts/torch_handler), and Triton does not.
HANDLERS: Mapping[str, tuple[str, ...]] = {
    "base_handler": (),
    "image_classifier": (_IMAGES, "after it: softmax, and the five most probable classes"),
    "image_segmenter": (_IMAGES, "after it: nothing; the model's own scores for each class and pixel"),
    "object_detector": (
        "before the model: scale an RGB image to 0..1, put channels first; the model gets a list of images",
        "after it: boxes and classes whose score is above 0.5",
    ),
    "text_classifier": (
        "before the model: take off HTML tags, accents and punctuation, lower-case, expand contractions, split into "
        "words, and look up words and pairs of words in source_vocab.pt; the model gets the numbers and offsets [0]",
        "after it: softmax",
    ),
}
_STAGES = ("initialize", "preprocess", "inference", "postprocess", "handle")
_HIGHEST_CLASS = 1_000_000


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    name: Annotated[str, Field(alias="modelName")] = ""
    handler: str = ""
    serialized: Annotated[str, Field(alias="serializedFile")] = ""
    code: Annotated[str, Field(alias="modelFile")] = ""
    version: Annotated[str, Field(alias="modelVersion")] = ""
    requirements: Annotated[str, Field(alias="requirementsFile")] = ""
    config: Annotated[str, Field(alias="configFile")] = ""


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    model: _Model
    runtime: str = "python"


@dataclass(frozen=True)
class Mar:
    """An unpacked archive. The paths of its files lie in `folder`."""

    folder: Path
    model: _Model
    labels: tuple[str, ...] = ()  # class names, in order, of index_to_name.json

    @property
    def serialized(self) -> Path:
        return self.folder / self.model.serialized

    @property
    def code(self) -> Path | None:
        return self.folder / self.model.code if self.model.code else None

    @property
    def has_own_handler(self) -> bool:
        return self.model.handler not in HANDLERS

    def not_carried(self) -> Iterator[str]:
        """What TorchServe did beside running the model, a sentence each."""
        model = self.model
        if self.has_own_handler:
            yield f"{own_handler(self)}: this code does not run in Triton"
        for text in HANDLERS.get(model.handler, ()):
            yield f"clients do what the handler {model.handler} did {text}"
        if model.requirements:
            yield f"{model.requirements}: its packages are not installed"
        if model.config:
            yield f"{model.config}: workers and batching are `serving` here"
        if extra := self._extra_files():
            yield f"files of the archive that are not used: {', '.join(extra)}"

    def _extra_files(self) -> list[str]:
        model = self.model
        used = {
            MANIFEST,
            LABELS,
            model.serialized,
            model.code,
            model.requirements,
            model.config,
            handler_file(model.handler),
        }
        files = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())
        return sorted(name for name in files if name not in used)


def read_mar(folder: Path, name: str) -> Mar:
    """An unpacked archive; `name` is what it is called in messages. Raises StepError."""
    root = _root(folder)
    if root is None:
        raise StepError(f"{name}: there is no {MANIFEST} in it", "name an archive that torch-model-archiver wrote")
    try:
        manifest = _Manifest.model_validate_json(_text(root / MANIFEST))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise StepError(f"{name}: {MANIFEST}: {field + ': ' if field else ''}{first['msg']}", _AGAIN) from None
    model = manifest.model
    if not manifest.runtime.startswith("python"):
        raise StepError(f"{name}: its runtime is {manifest.runtime}, which is no Python", "archive the model itself")
    if not model.serialized:
        hint = "its handler loads the model by code of its own: load it in a builder of kind torch"
        raise StepError(f"{name}: {MANIFEST} names no serializedFile", hint)
    for field, file in (("serializedFile", model.serialized), ("modelFile", model.code)):
        if file:
            _check_inside(root, f"{name}: {MANIFEST}: {field}", file)
    found = file_type(root / model.serialized)
    if not model.code and found is not TORCHSCRIPT:
        what = f"{model.serialized} is {found.what if found else 'no TorchScript file'}"
        hint = (
            "archive TorchScript, or weights with the --model-file of their class; source.kind onnx takes an ONNX file"
        )
        raise StepError(f"{name}: {what}, and {MANIFEST} names no modelFile", hint)
    return Mar(root, model, _labels(root / LABELS, name))


def handler_file(handler: str) -> str:
    """ "handler.py" of "handler", "handler.py" and "handler:Digits"; also of TorchServe's own, which have none."""
    return handler.partition(":")[0].removesuffix(".py") + ".py"


def own_handler(mar: Mar) -> str:
    """The archive's own handler, by file, class and what the class defines. Its code is read, and not run."""
    name = handler_file(mar.model.handler)
    try:
        tree = ast.parse(_text(mar.folder / name))
    except (StepError, SyntaxError, ValueError, RecursionError):
        return f"the handler {mar.model.handler}"
    for item in tree.body:
        stages = _stages(item)
        if isinstance(item, ast.ClassDef) and stages:
            bases = ", ".join(ast.unparse(base) for base in item.bases)
            return f"{name}: class {item.name}{f'({bases})' if bases else ''} with {', '.join(stages)}"
    functions = [item.name for item in tree.body if isinstance(item, ast.FunctionDef)]
    return f"{name}: {', '.join(functions)}" if functions else name


def _stages(item: ast.stmt) -> list[str]:
    if not isinstance(item, ast.ClassDef):
        return []
    defined = {part.name for part in item.body if isinstance(part, ast.FunctionDef)}
    return [stage for stage in _STAGES if stage in defined]


def _root(folder: Path) -> Path | None:
    """tar.gz archives have one folder around everything."""
    if (folder / MANIFEST).is_file():
        return folder
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return next((path for path in inside if len(inside) == 1 and (path / MANIFEST).is_file()), None)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_TEXT:
            raise StepError(f"{path.name}: {path.stat().st_size:,} bytes of text", _AGAIN)
        return read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{path.name}: cannot be read: {error}", _AGAIN) from None


def _check_inside(root: Path, where: str, file: str) -> None:
    path = root / file
    if not path.resolve().is_relative_to(root.resolve()):
        raise StepError(f"{where}: '{file}' leaves the archive", _AGAIN)
    if not path.is_file():
        raise StepError(f"{where}: there is no file '{file}' in the archive", _AGAIN)


def _labels(path: Path, name: str) -> tuple[str, ...]:
    """{"0": "tench"}, {"0": ["n01440764", "tench"]} or {"object_type_names": ["person", …]}."""
    if not path.is_file():
        return ()
    try:
        names = json.loads(_text(path))
        if isinstance(names, dict) and isinstance(names.get("object_type_names"), list):
            names = dict(enumerate(names["object_type_names"]))
        by_number = {int(key): value[-1] if isinstance(value, list) else value for key, value in names.items()}
    except (ValueError, AttributeError, IndexError, RecursionError) as error:
        raise StepError(f"{name}: {LABELS}: {type(error).__name__}: {error}", 'write {"0": "first class", …}') from None
    if not by_number or min(by_number) < 0 or max(by_number) > _HIGHEST_CLASS:
        return ()
    return tuple(" ".join(str(by_number.get(index, index)).split()) for index in range(max(by_number) + 1))
