"""`modelwright lint`: which repository, for which release, with whose ignores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelwright.errors import ModelwrightError, ProjectError
from modelwright.lint.engine import Report, lint
from modelwright.lint.registry import check_ignores
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.project.project import FILE, ProjectConfig, find
from modelwright.triton.layout import CONFIG
from modelwright.triton.releases import known_releases, release


@dataclass(frozen=True)
class Request:
    """What was asked for. `folder` is where the command runs; `path` is None for the project's repository."""

    folder: Path
    path: Path | None = None
    target: str | None = None
    auto_complete: bool = True


def run(request: Request) -> Report:
    """Lint a repository. Raises ModelwrightError where that cannot be done; findings are no errors of this kind."""
    project = _project(request)
    root = request.path or (project.repository if project else None)
    if root is None:
        raise ProjectError(
            f"which repository? There is no {FILE} in {request.folder} or above it", "modelwright lint PATH"
        )
    _check_root(root)
    target = release(request.target or (project.target.name if project else known_releases()[-1]))
    ignores = project.ignores if project else ()
    check_ignores(ignores, FILE)
    return lint(RepositoryTree.read(root), Options(target, request.auto_complete), ignores)


def _project(request: Request) -> ProjectConfig | None:
    """The project that a repository belongs to: the one it lies in."""
    try:
        return find(request.path if request.path and request.path.is_dir() else request.folder)
    except ProjectError as error:
        if error.message.startswith(f"no {FILE}"):
            return None
        raise


def _check_root(root: Path) -> None:
    if not root.exists():
        raise ModelwrightError(
            f"{root}: there is no such folder", "name the model repository: the folder with the models in it"
        )
    if not root.is_dir():
        raise ModelwrightError(f"{root}: is a file", "name the model repository: the folder with the models in it")
    if (root / CONFIG).is_file():
        raise ModelwrightError(
            f"{root}: is a model, not a repository", f"name the folder above it: {root.resolve().parent}"
        )
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise ModelwrightError(f"{root}: cannot be read: {error.strerror}") from None
