"""The linter before a publish: the repository as it is about to be. Errors keep a model out, warnings are passed on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from modelwright.build.faults import Faults
from modelwright.build.planned_tree import planned_tree
from modelwright.errors import LintError
from modelwright.fsops import disk_errors, read_text
from modelwright.lint.engine import Finding, lint
from modelwright.lint.registry import check_ignores
from modelwright.lint.tree import RepositoryTree
from modelwright.lint.view import Options
from modelwright.project.project import FILE, ProjectConfig
from modelwright.repository.repository import Change, Repository


def check(
    project: ProjectConfig,
    changes: Sequence[Change],
    models: Collection[str],
    faults: Faults,
    *,
    so: str = "it is not published",
    holds_lock: bool = True,
) -> dict[str, list[str]]:
    """Lint the repository with the changes made; findings of `models` count: errors are faults, warnings are returned.

    `so` says what an error means for its model. Who does not hold the build lock works outside the staging folder,
    which others may clean.

    A server of the project completes nothing that matters: configs that are rendered are complete, so both kinds of
    server take them.
    """
    check_ignores(project.ignores, FILE)
    with disk_errors(project.repository), _scratch(project, holds_lock) as scratch:
        tree = planned_tree(project.repository, changes, Path(scratch), faults, Repository.of(project).retired_root)
        report = lint(tree, Options(project.target), project.ignores, only=models)
        by_model: dict[str, list[Finding]] = {}
        for item in report.errors:
            by_model.setdefault(item.model, []).append(item)
        for model, found in by_model.items():
            with faults.of(model, "lint"):
                raise _error(model, found, tree, so)
        for crash in report.crashes:
            faults.add(crash.model, f"lint {crash.rule}", crash.error)
    warnings: dict[str, list[str]] = {}
    for item in report.warnings:
        text = f"{item.where}: {item.rule.id}: {item.message}\n  fix: {item.fix}"
        warnings.setdefault(item.model, []).append(text)
    return warnings


@contextmanager
def _scratch(project: ProjectConfig, holds_lock: bool) -> Iterator[str]:
    """A folder where the next build removes what a killed one leaves."""
    if holds_lock:
        project.staging.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="lint-", dir=project.staging if holds_lock else None) as folder:
        yield folder


def _error(model: str, found: Sequence[Finding], tree: RepositoryTree, so: str) -> LintError:
    lines = []
    for item in found:
        lines.append(f"  {item.where}: {item.rule.id}: {item.message}")
        lines += [f"    {item.line} | {text}" for text in _line(item, tree)]
        lines.append(f"    fix: {item.fix}")
    count = "1 error" if len(found) == 1 else f"{len(found)} errors"
    hint = f"config.pbtxt is made from `serving` in model.yaml; more: modelwright lint --explain {found[0].rule.id}"
    return LintError(f"{model}: lint: {count}, so {so}\n" + "\n".join(lines), hint)


def _line(item: Finding, tree: RepositoryTree) -> list[str]:
    """The line itself: the file is not on disk for a person to look into."""
    folder = tree.models.get(item.model)
    if folder is None or item.line is None:
        return []
    text = read_text(folder.locate(item.file.partition("/")[2]), errors="replace").splitlines()
    return text[item.line - 1 : item.line]
