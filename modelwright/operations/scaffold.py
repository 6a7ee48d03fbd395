"""`modelwright new`: a builder that builds as it stands, and says in comments where a newcomer changes what.

`scaffolds/<template>/` holds the files, with `$name` where the model's name goes. An ensemble comes with two models to
run. What a template cannot hold as text, an ONNX file, is made here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

import yaml
from pydantic import TypeAdapter, ValidationError

from modelwright.errors import SpecError
from modelwright.fsops import translated
from modelwright.operations import schema
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builder
from modelwright.project.spec import FILE, Builder, Name
from modelwright.project.spec import KINDS as _ALL_KINDS
from modelwright.suggest import did_you_mean

KINDS = tuple(kind for kind in _ALL_KINDS if kind != "prebuilt")  # those are made by `modelwright adopt`
_SUFFIX = ".tmpl"  # keeps linters and type checkers of this package away from code that is not its own
_SCALE, _EDGES = "_scale", "_edges"
# What a kind comes to: the suffix of each model's name → its template. Models come before the ensemble that runs them.
_PARTS: Mapping[str, Mapping[str, str]] = {
    **{kind: {"": kind} for kind in KINDS},
    "ensemble": {_SCALE: "ensemble_scale", _EDGES: "onnx", "": "ensemble"},
}
_NEEDS = {"torch": ("torch", "torch"), "huggingface": ("transformers", "text")}  # kind → import name, extra
# Older than the limits of every release this package knows.
_OPSET, _IR = 17, 8


@dataclass(frozen=True)
class Scaffold:
    """What was written: builder folders, the one that was asked for last."""

    kind: str
    folders: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.folders[-1].name


def new_builder(project: ProjectConfig, name: str, kind: str) -> Scaffold:
    """Write builders/`name`, all of it or nothing, and never over anything.

    Raises SpecError for an unknown kind, a name that Triton cannot serve, and a name or folder that is taken.
    """
    if kind not in _PARTS:
        raise SpecError(f"--kind {kind}: unknown kind", did_you_mean(kind, KINDS))
    models = {f"{name}{suffix}": template for suffix, template in _PARTS[kind].items()}
    for model in models:
        _check_name(model)
    folders = {project.builders / model: template for model, template in models.items()}
    _check_free(project, [*folders])
    with translated(project.builders), _staging(project.builders) as staging:
        for folder, template in folders.items():
            _write(staging / folder.name, template, name, schema.editor_line(project, folder).rstrip())
        schema.put_into(project)
        _move_into_place(staging, [*folders])
    return Scaffold(kind, tuple(folders))


def readable_builders(project: ProjectConfig) -> list[Builder]:
    """The builders whose model.yaml can be read. One with an error in it is no reason not to start another."""
    builders = []
    for folder in sorted(project.builders.iterdir()) if project.builders.is_dir() else ():
        with contextlib.suppress(SpecError):
            builders.append(read_builder(folder, project.shown(folder / FILE)))
    return builders


def missing_extra(kind: str, installed: Callable[[str], object] = find_spec) -> str:
    """The extra of this package that a kind needs and that is not installed; '' for none.

    `installed` says of an import name whether it is there.
    """
    module, extra = _NEEDS.get(kind, ("", ""))
    return "" if not module or installed(module) else extra


def _check_name(name: str) -> None:
    """The rule, and the words, of model.yaml's own `name`."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise SpecError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _check_free(project: ProjectConfig, folders: list[Path]) -> None:
    if project.builders.exists() and not project.builders.is_dir():
        raise SpecError(f"{project.shown(project.builders)} is not a folder", "see paths.builders in modelwright.toml")
    for folder in folders:
        if folder.exists() or folder.is_symlink():
            raise SpecError(f"{project.shown(folder)} exists", "nothing was written; choose another name")
    taken = {builder.name: builder.file for builder in readable_builders(project)}
    for folder in folders:
        if folder.name in taken:
            where = taken[folder.name]
            raise SpecError(f"the name '{folder.name}' is taken by {where}", "nothing was written; choose another name")


@contextlib.contextmanager
def _staging(builders: Path) -> Iterator[Path]:
    """A folder beside the builders, so that they appear by rename. It has no model.yaml: a build passes it by."""
    builders.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=builders))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(folder: Path, template: str, name: str, editor_line: str) -> None:
    """Write one builder. `name` is the model that was asked for, which an ensemble's members are named after."""
    folder.mkdir()
    values = {"name": folder.name, "yaml_name": _as_yaml(folder.name), "ensemble": name, "editor": editor_line}
    values |= {"scale": _as_yaml(f"{name}{_SCALE}"), "edges": _as_yaml(f"{name}{_EDGES}")}
    for source in (files("modelwright.kinds") / "scaffolds" / template).iterdir():
        if source.name.endswith(_SUFFIX):
            text = Template(source.read_text(encoding="utf-8")).substitute(values)
            (folder / source.name.removesuffix(_SUFFIX)).write_text(text, encoding="utf-8")
    if template == "onnx":
        (folder / "model.onnx").write_bytes(_sobel_onnx())


def _as_yaml(name: str) -> str:
    """The name as YAML reads it back: quoted where it would be a number or a word of YAML's own, like `no`."""
    return name if yaml.safe_load(name) == name else json.dumps(name)


def _move_into_place(staging: Path, folders: list[Path]) -> None:
    """Rename each builder to where it belongs; if one cannot be, take back those that were."""
    moved: list[Path] = []
    try:
        for folder in folders:
            (staging / folder.name).rename(folder)
            moved.append(folder)
    except OSError as error:
        for folder in moved:
            folder.rename(staging / folder.name)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):  # another process was faster
            raise SpecError(f"{folders[len(moved)].name} exists", "nothing was written; choose another name") from None
        raise


def _sobel_onnx() -> bytes:
    """A small real model: the length of the gradient of grey images, (batch, 1, height, width) → the same shape."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    across = np.outer([1, 2, 1], [-1, 0, 1])
    kernels = np.stack([across, across.T]).astype(np.float32)[:, None]
    shape = ["batch", 1, "height", "width"]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "sobel"], ["gradient"], pads=[1, 1, 1, 1]),
            helper.make_node("ReduceL2", ["gradient"], ["edges"], axes=[1], keepdims=1),
        ],
        "sobel",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("edges", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(kernels, "sobel")],
    )
    opset = helper.make_opsetid("", _OPSET)
    model: bytes = helper.make_model(
        graph, producer_name="modelwright", opset_imports=[opset], ir_version=_IR
    ).SerializeToString(deterministic=True)
    return model
