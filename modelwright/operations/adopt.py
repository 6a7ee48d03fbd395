"""Turn an existing Triton repository into builders of kind prebuilt. The repository stays untouched.

builders/<name>/model.yaml holds every file's digest, and the whole ModelConfig as `serving`; the files lie beside it
under the paths they have in the repository: `3/model.onnx`, `labels.txt`, `warmup/image`. A builder is written beside
the others and appears by one rename; one that exists is never touched. What is written is read back: the builder must
give exactly the ModelConfig that the repository has.

Of versions that Modelwright published, golden.npz is copied, too: its samples are checked again, and published again
with the version. manifest.json is not copied, because publishing writes a new one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from modelwright.config.model_config import config_of, tensors_of
from modelwright.digest import copy_hashed, sha256_file
from modelwright.errors import ModelwrightError, RepositoryError, SpecError
from modelwright.fsops import disk_errors, fsync_tree, locked, read_text, remove_tree, rename_durably
from modelwright.lint.engine import Finding, lint
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.operations import schema
from modelwright.operations.scaffold import readable_builders
from modelwright.project.files import check_fetched
from modelwright.project.project import ProjectConfig
from modelwright.project.reader import read_builder
from modelwright.project.spec import FILE, Builder, Name
from modelwright.project.writer import model_yaml, serving_of
from modelwright.repository.reading import WHOLE, FoundGolden, FoundModel, NotCarried, models_of, read_model
from modelwright.suggest import did_you_mean
from modelwright.triton.layout import CONFIG, GOLDEN
from modelwright.triton.messages import differences
from modelwright.variants.registry import LOOKUPS

LOCK = "adopt.lock"
# Rules about what a version's files are. What else is wrong with a model, its build says.
_FILES = ("MW116", "MW601", "MW609", "MW801", "MW803")
_STAGING = ".adopt-"  # a folder without a model.yaml, which a build ignores
_COMPLETED = "# The repository has no config.pbtxt for it: the server completes the configuration from the model.\n"
_ABOUT = (
    "# Adopted: the files lie beside this one, and stay what their SHA-256 says. serving is the whole config.pbtxt.\n"
)


@dataclass(frozen=True)
class Adopted:
    """The result for one model. `unchanged`: its builder existed already, with the same content."""

    model: str
    status: Literal["adopted", "unchanged", "failed"]
    folder: Path
    versions: tuple[int, ...] = ()
    files: int = 0
    size_bytes: int = 0


@dataclass
class Adoption:
    """The result for each model, and everything that was not carried over."""

    models: list[Adopted] = field(default_factory=list)
    left: list[NotCarried] = field(default_factory=list)  # in order of what they belong to

    @property
    def any_adopted(self) -> bool:
        return any(item.status != "failed" for item in self.models)


def adopt(
    project: ProjectConfig,
    path: Path,
    names: Sequence[str] = (),
    into: Path | None = None,
    started: Callable[[str], object] = lambda model: None,
) -> Adoption:
    """Write a builder for every model of the repository at `path`, or for those named. `started` is called with each.

    A model that cannot be adopted is in the result, and does not stop the others. Raises RepositoryError for a path
    that is not a repository, and for a name that is not in it.
    """
    root, builders = path.resolve(), (into or project.builders).resolve()
    if builders.is_relative_to(root):
        raise RepositoryError(
            f"--into {builders}: lies in {root}, which adoption does not touch", "give another folder"
        )
    models, left = models_of(root)
    for name in names:
        if name not in models:
            raise RepositoryError(f"{name}: is not in {path}", did_you_mean(name, models))
    adoption = Adoption(left=[] if names else left)
    with locked(project.state / LOCK, "modelwright adopt", wait=False), disk_errors(builders):
        builders.mkdir(parents=True, exist_ok=True)
        for staging in builders.glob(f"{_STAGING}*"):  # of a process that was killed
            remove_tree(staging)
        schema.put_into(project)
        taken = {builder.name: builder for builder in readable_builders(project)}
        unusable = _unusable_files(project, root)
        for name in names or models:
            started(name)
            target = builders / name
            _adopt_one(project, root, models[name], target, taken.get(name), unusable.get(name, []), adoption)
    _merge_comments(adoption)
    return adoption


def _unusable_files(project: ProjectConfig, root: Path) -> dict[str, list[Finding]]:
    """{model: what the linter says of its files} where they are not what the project's release loads."""
    report = lint(RepositoryTree.read(root), Options(project.target), project.ignores)
    found: dict[str, list[Finding]] = {}
    for item in report.errors:
        if item.rule.id in _FILES:
            found.setdefault(item.model, []).append(item)
    return found


def _adopt_one(
    project: ProjectConfig,
    root: Path,
    folder: Path,
    target: Path,
    taken_by: Builder | None,
    unusable: Sequence[Finding],
    adoption: Adoption,
) -> None:
    name = folder.name
    try:
        _check_name(name)
        if taken_by and taken_by.folder != target:
            raise SpecError(f"the name is taken by {taken_by.file}", "give that builder another name")
        found = read_model(root, folder)
        _check_files(found, unusable)
        adoption.left += found.left
        if found.has_comments:
            adoption.left.append(NotCarried(name, _COMMENTS, ""))
        if not found.has_config:
            adoption.left.append(
                NotCarried(name, CONFIG, "there is none: serving is empty, and the server completes it")
            )
        adoption.models.append(_write(project, found, target))
    except ModelwrightError as error:
        hint = f" ({error.hint})" if error.hint else ""
        adoption.left.append(NotCarried(name, WHOLE, f"{error.message}{hint}"))
        adoption.models.append(Adopted(name, "failed", target))
    except OSError as error:
        if error.filename is None or not Path(str(error.filename)).is_relative_to(root):
            raise
        where = Path(str(error.filename)).relative_to(root)
        adoption.left.append(NotCarried(name, WHOLE, f"{where}: cannot be read: {error.strerror}"))
        adoption.models.append(Adopted(name, "failed", target))


def _check_name(name: str) -> None:
    if name.startswith("."):
        raise SpecError("the folder is hidden, but a server would serve it as a model")
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise SpecError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _check_files(found: FoundModel, unusable: Sequence[Finding]) -> None:
    """Refuse files that are not what they seem: a copy of them would not load, and nobody would know why."""
    for name, path in _origins(found).items():
        check_fetched(path, f"{name}:")
    if unusable:
        first = unusable[0]
        more = f", and {len(unusable) - 1} more of its kind" if len(unusable) > 1 else ""
        where = first.file.removeprefix(f"{found.name}/")
        raise SpecError(f"{where}: {first.message} ({first.rule.id}){more}", first.fix.removesuffix("."))


def _write(project: ProjectConfig, found: FoundModel, target: Path) -> Adopted:
    """Write the builder beside its place and rename it, or compare it with the one that exists."""
    origins = _origins(found)
    if target.exists() or target.is_symlink():
        _check_same(project, found, target, origins)
        return _adopted(found, target, origins, "unchanged")
    with _staging(target.parent) as staging:
        staged = staging / found.name
        staged.mkdir()
        for number in found.versions:
            (staged / str(number)).mkdir()
        digests = {name: _copy(origin, staged / name) for name, origin in origins.items()}
        (staged / FILE).write_text(_text(project, found, digests, target), encoding="utf-8")
        _check_written(project, found, staged, target)
        fsync_tree(staged)
        if target.exists():  # rename would replace a folder that is empty
            raise SpecError(f"{project.shown(target)} exists", "nothing was overwritten")
        rename_durably(staged, target)
    return _adopted(found, target, origins, "adopted")


def _origins(found: FoundModel) -> dict[str, Path]:
    """{path in the builder's folder: file of the repository}."""
    origins = {f"{number}/{name}": path for number, files in found.versions.items() for name, path in files.items()}
    return origins | found.files | {f"{number}/{GOLDEN}": golden.path for number, golden in found.golden.items()}


def _copy(origin: Path, target: Path) -> str:
    """Copy one file, and read it back to check its digest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = copy_hashed(origin, target)
    if sha256_file(target) != digest:
        raise SpecError(f"{target.name}: the copy differs from what was read", "check the disk")
    return digest


def _text(project: ProjectConfig, found: FoundModel, digests: dict[str, str], target: Path) -> str:
    source: dict[str, Any] = {
        "kind": "prebuilt",
        "versions": {
            number: {name: digests[f"{number}/{name}"] for name in files} for number, files in found.versions.items()
        },
    }
    if found.files:
        source["files"] = {name: digests[name] for name in found.files}
    if found.golden:
        source["golden"] = {
            number: _golden_record(golden, digests[f"{number}/{GOLDEN}"]) for number, golden in found.golden.items()
        }
    head = schema.editor_line(project, target) + _ABOUT + ("" if found.has_config else _COMPLETED)
    return model_yaml(found.name, source, serving_of(found.config), head)


def _golden_record(golden: FoundGolden, sha256: str) -> dict[str, Any]:
    record = {"sha256": sha256, **golden.comparison.as_json()}
    return record | ({"members": golden.composing_models} if golden.composing_models else {})


def _check_written(project: ProjectConfig, found: FoundModel, staged: Path, target: Path) -> None:
    """Read the builder as a build does. Its ModelConfig must equal the repository's, field by field."""
    builder = read_builder(staged, project.shown(target / FILE), LOOKUPS)
    for difference in differences(found.config, config_of(builder, tensors_of(builder))):
        raise SpecError(f"{CONFIG}: cannot be written as YAML: {difference}", "this is a bug in modelwright: report it")


def _check_same(project: ProjectConfig, found: FoundModel, target: Path, origins: dict[str, Path]) -> None:
    """Raise SpecError where the builder that exists differs from the one that adoption would write."""
    hint = "nothing was overwritten: remove it first, or adopt --into another folder"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = read_text(target / FILE)
        digests = {name: sha256_file(target / name) for name in origins}
        same = text == _text(project, found, digests, target)
        if same and all(sha256_file(path) == digests[name] for name, path in origins.items()):
            return
    raise SpecError(f"{project.shown(target)} exists, and differs from what adoption would write", hint)


def _adopted(
    found: FoundModel, target: Path, origins: dict[str, Path], status: Literal["adopted", "unchanged"]
) -> Adopted:
    size = sum((target / name).stat().st_size for name in origins)
    return Adopted(found.name, status, target, tuple(found.versions), len(origins), size)


@contextlib.contextmanager
def _staging(builders: Path) -> Iterator[Path]:
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=builders))
    try:
        yield staging
    finally:
        remove_tree(staging)


_COMMENTS = f"comments in {CONFIG}"


def _merge_comments(adoption: Adoption) -> None:
    """One entry for the comments of all models."""
    models = [item.model for item in adoption.left if item.thing == _COMMENTS]
    adoption.left = [item for item in adoption.left if item.thing != _COMMENTS]
    if models:
        why = "a ModelConfig has no place for them; write them into model.yaml"
        adoption.left.append(NotCarried(", ".join(models), _COMMENTS, why))
