"""`modelwright init`: a project that works as it stands, with one small builder.

The files lie in `modelwright/starter/`; templates and the locustfile are those that Modelwright itself has.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelwright import __version__
from modelwright.config.render import shipped_templates
from modelwright.digest import list_tree
from modelwright.errors import ProjectError
from modelwright.fsops import disk_errors, read_text
from modelwright.operations.scaffold import new_builder
from modelwright.project.project import FILE, load
from modelwright.triton.releases import TESTED_WITH, release

EXAMPLE = "edges"  # the builder that it writes
_PACKAGE = Path(__file__).resolve().parent.parent
_PLACES = {"gitignore": ".gitignore", "models.yml": ".github/workflows/models.yml"}  # the others keep their names
_LOCUSTFILE = "loadtest/locustfile.py"


@dataclass(frozen=True)
class Started:
    """A new project: its folder, the files that were written, and those that were there and stay as they were."""

    root: Path
    written: tuple[str, ...]
    kept: tuple[str, ...] = ()


def init_project(folder: Path, *, target: str | None = None, keep: bool = False) -> Started:
    """Write a project into a folder, which is made where it is missing: all of it or nothing, and never over anything.

    Raises ProjectError for an unknown release, and where files are in the way; with `keep` those stay as they are, and
    the others are written.
    """
    chosen = release(target or TESTED_WITH)
    root = folder.resolve()
    if (root / FILE).exists():
        raise ProjectError(f"{root} is a project already", "start a builder in it: modelwright new NAME")
    with _disk_problems(root), _made(root), _staging(root) as staging:
        _write_project(staging, chosen.name)
        files = list_tree(staging)
        kept = tuple(name for name in files if _is_there(root, name))
        if kept and not keep:
            shown = ", ".join(kept)
            options = f"--keep --target {target}" if target else "--keep"
            again = f"modelwright init {options} {shlex.quote(str(root))}"
            hint = f"nothing was written; choose another folder, or keep those as they are: {again}"
            raise ProjectError(f"{root}: there are {shown} already", hint)
        if blocking := _no_folders(root, files):
            raise ProjectError(
                f"{root}: {', '.join(blocking)}: a file or a link where a folder is needed",
                "nothing was written; move it away, or choose another folder",
            )
        written = tuple(name for name in files if name not in kept)
        _move(staging, root, written)
    return Started(root, written, kept)


def _write_project(root: Path, target: str) -> None:
    values = {"@TRITON@": target, "@VERSION@": __version__}
    for path in (_PACKAGE / "starter").iterdir():
        if path.is_file() and path.suffix != ".py":
            text = read_text(path)
            for name, value in values.items():
                text = text.replace(name, value)
            place = root / _PLACES.get(path.name, path.name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
    shutil.copytree(shipped_templates(), root / "templates")
    (root / _LOCUSTFILE).parent.mkdir()
    shutil.copyfile(_shipped_locustfile(), root / _LOCUSTFILE)
    new_builder(load(root), EXAMPLE, "onnx")


def _shipped_locustfile() -> Path:
    """Inside the package when installed, beside it in a checkout."""
    inside = _PACKAGE / "starter" / Path(_LOCUSTFILE).name
    return inside if inside.is_file() else _PACKAGE.parent / _LOCUSTFILE


@contextlib.contextmanager
def _disk_problems(root: Path) -> Iterator[None]:
    try:
        with disk_errors(root):
            yield
    except OSError as error:
        message = f"{root}: cannot be made: {error.filename or root}: {error.strerror}"
        raise ProjectError(message, "name another folder: modelwright init DIR") from None


@contextlib.contextmanager
def _made(root: Path) -> Iterator[None]:
    """The folder, which goes again when it was made here and the block fails."""
    if root.exists() and not root.is_dir():
        raise ProjectError(f"{root} is not a folder", "name another one: modelwright init DIR")
    missing = [path for path in (root, *root.parents) if not path.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


@contextlib.contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder below the project's, so that files appear by rename."""
    staging = Path(tempfile.mkdtemp(prefix=".init-", dir=root))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _is_there(root: Path, name: str) -> bool:
    """Whether there is a file of this name, or a file where one of its folders would be."""
    return os.path.lexists(root / name) or bool(_no_folders(root, (name,)))


def _no_folders(root: Path, names: Iterable[str]) -> list[str]:
    """What is there, and is no folder, where folders of these files would be."""
    parents = {str(parent): root / parent for name in names for parent in Path(name).parents if parent.name}
    return sorted(name for name, path in parents.items() if os.path.lexists(path) and not path.is_dir())


def _move(staging: Path, root: Path, names: tuple[str, ...]) -> None:
    """Move files into place; when one cannot be, take back those that were, and the folders made for them."""
    made: list[Path] = []
    try:
        for name in names:
            for parent in reversed((root / name).parents):
                if not parent.exists():
                    parent.mkdir()
                    made.append(parent)
            (staging / name).rename(root / name)
            made.append(root / name)
    except BaseException:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        raise
