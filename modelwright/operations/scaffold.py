"""`modelwright new`: a builder that builds as it stands, and says in comments where a newcomer changes what.

A kind's `scaffold` has the files, with `$name` where the model's name goes. That of an ensemble has two models to run.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from pydantic import TypeAdapter, ValidationError

from modelwright import extras
from modelwright.build.lock_files import Say
from modelwright.errors import SpecError, located
from modelwright.fsops import disk_errors
from modelwright.kinds.kind import BuilderTemplate, Files, Kind
from modelwright.kinds.registry import find, registered
from modelwright.operations import schema
from modelwright.operations.importing.at_uri import looked_at
from modelwright.operations.importing.recogniser import NewBuilder, Written
from modelwright.operations.importing.registry import recognised
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builder
from modelwright.project.source_lock import FILE as LOCK_FILE
from modelwright.project.source_lock import SourceLock, source_lock_text
from modelwright.project.spec import FILE, Builder, Name
from modelwright.project.uris import is_uri, uris_of
from modelwright.project.writer import as_yaml
from modelwright.text import printable
from modelwright.variants.registry import LOOKUPS


def _quiet(text: str) -> None:
    return None


@dataclass(frozen=True)
class Scaffold:
    """What was written: builder folders, the one that was asked for last."""

    kind: str
    folders: tuple[Path, ...]
    what: str = ""  # that it was made around: "an ONNX file: opset 17; 1 input, 1 output"
    written: Written = field(default_factory=Written)
    template: str | None = None

    @property
    def name(self) -> str:
        return self.folders[-1].name

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the model."""
        return self.written.notes

    @property
    def builds(self) -> bool:
        return self.written.builds


def new_builder(project: ProjectConfig, name: str, kind: str, template: str | None = None) -> Scaffold:
    """Write builders/`name`, all of it or nothing, and never over anything; from a template of the kind, if given.

    Raises KindError for an unknown kind; SpecError for one without a scaffold, a name that Triton cannot serve, and a
    name or folder that is taken.
    """
    with located("--kind"):
        found = find(kind)
    if not found.scaffold:
        known = ", ".join(other.name for other in scaffolded_kinds())
        raise SpecError(f"--kind: there is no scaffold for '{kind}'", f"one of {known}")
    scaffold = found.scaffold if template is None else {"": _template(found, template).files}
    models = {f"{name}{suffix}": files for suffix, files in scaffold.items()}
    for model in models:
        _check_name(model)
    folders = [project.builders / model for model in models]
    _check_free(project, folders)
    names = {suffix.lstrip("_"): as_yaml(f"{name}{suffix}") for suffix in scaffold if suffix}
    with disk_errors(project.builders), _staging(project.builders) as staging:
        for folder, files in zip(folders, models.values(), strict=True):
            editor_line = schema.editor_line(project, folder).rstrip()
            values = {"name": folder.name, "yaml_name": as_yaml(folder.name), "editor": editor_line}
            _write(staging / folder.name, files(), {**values, "whole": name, **names})
        schema.put_into(project)
        _move_into_place(staging, folders)
    return Scaffold(kind, tuple(folders), template=template)


def _template(kind: Kind[Any], name: str) -> BuilderTemplate:
    if name not in kind.templates:
        others = [
            f"--kind {other.name} --template {known}" for other in scaffolded_kinds() for known in other.templates
        ]
        hint = f"known: {', '.join(kind.templates)}" if kind.templates else f"there is {', '.join(others)}"
        raise SpecError(f"--template: kind {kind.name} has no template '{name}'", hint)
    return kind.templates[name]


def new_from(project: ProjectConfig, name: str, given: str, kind: str | None = None, say: Say = _quiet) -> Scaffold:
    """Write builders/`name` around what is given: what it is made of, its tensors, samples that it takes.

    `given` is a file, a folder or a URI, which `kind` may restrict to what a builder of that kind is made of. Raises
    SpecError like `new_builder`, and for what nobody recognises; ModelwrightError for a model that cannot be served,
    with the reason, and for a URI that leads to nothing. `say` is told what is fetched.
    """
    _check_name(name)
    folder = project.builders / name
    _check_free(project, [folder])
    if not is_uri(given):
        return _written_around(project, folder, given, Path(given), kind)
    with looked_at(project, given, say) as found:
        return _written_around(project, folder, given, found.path, kind, found.lock)


def _written_around(
    project: ProjectConfig, folder: Path, given: str, path: Path, kind: str | None, lock: SourceLock | None = None
) -> Scaffold:
    """A builder around what lies at `path`; with `lock`, which is kept beside it, around what lies at a URI."""
    name, uri = folder.name, lock.uri if lock else ""
    found, recogniser = recognised(given, path, kind)
    with disk_errors(project.builders), _staging(project.builders) as staging:
        (staging / name).mkdir()
        editor = schema.editor_line(project, folder).rstrip()
        new = NewBuilder(project, name, staging / name, folder, printable(given), editor, uri)
        written = recogniser.write(found, new)
        if lock and _names(read_builder(new.folder, project.shown(folder / FILE), LOOKUPS), uri):
            new.write(LOCK_FILE, source_lock_text([lock]))
        schema.put_into(project)
        _move_into_place(staging, [folder])
    return Scaffold(found.kind, (folder,), found.what, written)


def _names(builder: Builder, uri: str) -> bool:
    """Whether a builder takes its source from the URI, and has no copy of it."""
    return uri in uris_of(builder.spec.source).values()


def scaffolded_kinds() -> list[Kind[Any]]:
    """The kinds that `new` can start a builder of."""
    return [kind for kind in registered().kinds.values() if kind.scaffold]


def readable_builders(project: ProjectConfig) -> list[Builder]:
    """The builders whose model.yaml can be read. One with an error in it is no reason not to start another."""
    builders = []
    for folder in sorted(project.builders.iterdir()) if project.builders.is_dir() else ():
        with contextlib.suppress(SpecError):
            builders.append(read_builder(folder, project.shown(folder / FILE), LOOKUPS))
    return builders


def missing_requirement(kind: str, template: str | None = None, installed: Callable[[str], object] = find_spec) -> str:
    """What pip must install before a builder of this kind can be built: `modelwright[torch]`; '' for nothing.

    `installed` says of an import name whether it is there.
    """
    missing = [] if all(map(installed, extras.EXTRAS["build"])) else [extras.requirement("build")]
    missing += [needs.install for needs in find(kind).needs if not all(map(installed, needs.modules))]
    if template is not None:
        more = find(kind).templates[template]
        missing += [] if all(map(installed, more.modules)) else [more.install]
    return missing[-1] if missing else ""


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


def _write(folder: Path, files: Files, values: Mapping[str, str]) -> None:
    folder.mkdir()
    for name, content in files.items():
        data = content if isinstance(content, bytes) else Template(content).substitute(values).encode()
        (folder / name).write_bytes(data)


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
