"""Runs the rules over a repository, and sorts what they find.

Every rule runs, since a config can be wrong in several ways at once; on a config that does not parse, only the rules
about text and folders run. A finding in a file that several environments share is reported once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelwright.lint.registry import all_rules
from modelwright.lint.rule import Found, Rule, Severity
from modelwright.lint.tree import ModelFolder, RepositoryTree, is_hidden
from modelwright.lint.view import EVERYWHERE, ConfigView, Options, RepositoryView
from modelwright.project.ignores import Ignore
from modelwright.text import printable


@dataclass(frozen=True)
class Finding:
    """One finding of one rule. `file` is relative to the repository."""

    rule: Rule
    model: str  # '' for a finding about the repository itself
    file: str
    line: int | None
    message: str
    fix: str
    ignored: str = ""  # the reason, where the project ignores it

    @property
    def severity(self) -> Severity:
        return self.rule.severity

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Crash:
    """A rule that raised on a model: a bug of the linter, which hides no finding of other rules or models."""

    rule: str
    model: str  # '' for a rule about the repository itself
    error: Exception


@dataclass(frozen=True)
class LintReport:
    """All findings, ignored ones included, in order of file and line."""

    root: Path
    options: Options
    models: int
    findings: tuple[Finding, ...]
    unused_ignores: tuple[Ignore, ...] = ()
    crashes: tuple[Crash, ...] = ()
    unasked: tuple[Path, ...] = ()  # ONNX files that leave open what onnxruntime would infer, and it is not installed

    @property
    def errors(self) -> list[Finding]:
        return [item for item in self.findings if item.severity is Severity.ERROR and not item.ignored]

    @property
    def warnings(self) -> list[Finding]:
        return [item for item in self.findings if item.severity is Severity.WARNING and not item.ignored]

    @property
    def ignored(self) -> list[Finding]:
        return [item for item in self.findings if item.ignored]


def lint(
    tree: RepositoryTree, options: Options, ignores: Sequence[Ignore] = (), only: Collection[str] | None = None
) -> LintReport:
    """Check a repository. With `only`, report findings of these models; the models that they run are checked too."""
    run = _Linter(RepositoryView(tree, options), ignores)
    findings = [item for item in run.findings() if only is None or item.model in only]
    findings = sorted(dict.fromkeys(findings), key=lambda item: (item.file, item.line or 0, item.rule.id, item.message))
    found = tuple(_with_ignores(findings, ignores))
    unused = () if only is not None else tuple(item for item in ignores if not _is_used(item, findings))
    crashes = tuple(item for item in run.crashes if only is None or item.model in only)
    unasked = tuple(sorted(run.repository.unasked))
    return LintReport(tree.root, options, len(tree.models), found, unused, crashes, unasked)


def _with_ignores(findings: Iterable[Finding], ignores: Sequence[Ignore]) -> Iterator[Finding]:
    for item in findings:
        reason = next((ignore.reason for ignore in ignores if ignore.covers(item.rule.id, item.model)), "")
        yield replace(item, ignored=reason) if reason else item


def _is_used(ignore: Ignore, findings: Iterable[Finding]) -> bool:
    return any(ignore.covers(item.rule.id, item.model) for item in findings)


@dataclass
class _Linter:
    repository: RepositoryView
    ignores: Sequence[Ignore] = ()
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    crashes: list[Crash] = field(default_factory=list)

    def __post_init__(self) -> None:
        for rule in all_rules().values():
            self.rules.setdefault(rule.scope, []).append(rule)
        self.rules["text"] = [rule for rule in self.rules["config"] if rule.on_text]

    def findings(self) -> Iterator[Finding]:
        yield from self._checked(self.rules["repository"], "", self.repository)
        models = [model for name, model in self.repository.tree.models.items() if not is_hidden(name)]
        for model in models:
            yield from self._checked(self.rules["model"], model.name, model)
        for environment in dict.fromkeys(["", *(name for model in models for name in model.config_files)]):
            for view in _composing_first(self._views(models, environment)):
                yield from self._of_view(view)

    def _views(self, models: Iterable[ModelFolder], environment: str) -> list[ConfigView]:
        """The configs that a server of this environment reads: its own, and those of all ensembles."""
        views = [self._view(model, environment) for model in models]
        return [
            view
            for view in views
            if view and (not environment or environment in view.model.config_files or _composing(view))
        ]

    def _view(self, model: ModelFolder, environment: str) -> ConfigView | None:
        try:
            return self.repository.view(model.name, environment)
        except Exception as error:
            self.crashes.append(Crash("config", model.name, error))
            return None

    def _of_view(self, view: ConfigView) -> list[Finding]:
        parses = not view.source.error and view.problem is None
        return self._checked(self.rules["config" if parses else "text"], view.model.name, view)

    def _checked(self, rules: Iterable[Rule], model: str, subject: Any) -> list[Finding]:
        """What rules find in a config, a model (in all its environments) or, without a model, the repository."""
        view = subject if isinstance(subject, ConfigView) else None
        found: list[Finding] = []
        for rule in rules:
            try:
                for item in rule.check(subject):
                    found.append(_finding(rule, model or _model_of(item.file, self.repository.tree), item, view))
                    if model:
                        self._note(rule, model, view.environment if view else EVERYWHERE)
            except Exception as error:
                self.crashes.append(Crash(rule.id, model, error))
        return found

    def _note(self, rule: Rule, model: str, environment: str) -> None:
        """Remember a model with errors, for ensembles that run it. An error that the project ignores does not count."""
        ignored = any(ignore.covers(rule.id, model) for ignore in self.ignores)
        if rule.severity is Severity.ERROR and not ignored:
            self.repository.failing.add((model, environment))


def _finding(rule: Rule, model: str, found: Found, view: ConfigView | None) -> Finding:
    line = found.line
    if line is None and view is not None and found.file == view.file and found.path:
        line = view.line(found.path)
    return Finding(rule, model, printable(found.file), line, printable(found.message), printable(found.fix or rule.fix))


def _model_of(file: str, tree: RepositoryTree) -> str:
    name = file.partition("/")[0]
    return name if name in tree.entries else ""


def _composing_first(views: Sequence[ConfigView]) -> list[ConfigView]:
    """Views ordered so that composing models come before their ensembles; circles in any order."""
    by_name = {(view.model.name, view.environment): view for view in views}
    ordered: dict[tuple[str, str], ConfigView] = {}
    waiting = [(key, False) for key in reversed(by_name)]
    entered = set()
    while waiting:
        key, done = waiting.pop()
        if done:
            ordered[key] = by_name[key]
        elif key not in entered:
            entered.add(key)
            waiting.append((key, True))
            waiting += [(composing, False) for composing in _composing(by_name[key]) if composing in by_name]
    return list(ordered.values())


def _composing(view: ConfigView) -> list[tuple[str, str]]:
    """(model, environment) of what an ensemble runs; empty for other models."""
    if view.message is None:
        return []
    steps = view.message.ensemble_scheduling.step
    return [(step.model_name, view.environment) for step in steps]
