"""Lint a model repository: the project's own, or any other folder."""

from __future__ import annotations

from pathlib import Path

from modelwright.errors import ModelwrightError, ProjectNotFoundError
from modelwright.lint.engine import LintReport, lint
from modelwright.lint.registry import check_ignores
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.project.project import FILE, ProjectConfig, find
from modelwright.triton.layout import CONFIG
from modelwright.triton.releases import newest_whole, release


def lint_project(project: ProjectConfig, *, target: str | None = None, auto_complete: bool = True) -> LintReport:
    """Lint the project's repository as a server of the project's release would load it, or one of `target`.

    `auto_complete` says whether the server completes configs. Raises ModelwrightError for a folder that is not a
    repository; findings are in the report.
    """
    _check_root(project.repository)
    return _lint(project.repository, project, target, auto_complete)


def lint_repository(path: Path, *, target: str | None = None, auto_complete: bool = True) -> LintReport:
    """Lint any repository, also one that was not built here.

    Where it lies in a project, release and ignores are the project's; elsewhere the release is the newest known. Raises
    ModelwrightError for a folder that is not a repository, and for an unknown release.
    """
    _check_root(path)
    try:
        project: ProjectConfig | None = find(path)
    except ProjectNotFoundError:
        project = None
    return _lint(path, project, target, auto_complete)


def _lint(root: Path, project: ProjectConfig | None, target: str | None, auto_complete: bool) -> LintReport:
    name = target or (project.target.name if project else newest_whole())
    options = Options(release(name, whole=False), auto_complete)
    ignores = project.ignores if project else ()
    check_ignores(ignores, FILE)
    return lint(RepositoryTree.read(root), options, ignores)


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
