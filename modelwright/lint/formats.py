"""Findings for people, for programs, for GitHub's annotations and for code scanning (SARIF 2.1.0)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from modelwright import __version__
from modelwright.lint.engine import Finding, LintReport
from modelwright.lint.registry import all_rules
from modelwright.lint.rule import Rule

_SCHEMA = 1
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"


def text(report: LintReport) -> str:
    """Findings one after the other, with the reason for a rule at its first finding."""
    lines, explained = [], set()
    for item in report.findings:
        if item.ignored:
            continue
        lines.append(f"{item.where}: {item.severity.value} {item.rule.id}: {item.message}")
        if item.rule.id not in explained:
            lines.append(f"    why: {item.rule.why}")
        explained.add(item.rule.id)
        lines.append(f"    fix: {item.fix}")
    for ignore in report.unused_ignores:
        lines.append(f"note: lint.ignore of {ignore.rule} for {', '.join(ignore.models)} matches no finding: remove it")
    return "\n".join([*lines, summary(report)])


def summary(report: LintReport) -> str:
    """`2 errors, 1 warning in 4 models for Triton 26.07`."""
    errors, warnings = len(report.errors), len(report.warnings)
    found = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}" if errors or warnings else "clean:"
    rest = f" ({len(report.ignored)} ignored, with reasons)" if report.ignored else ""
    target = report.options.target
    where = f"{_count(report.models, 'model')} for Triton {target.name}"
    if not target.onnxruntime:
        rest += "; no source states its onnxruntime: opsets and IR versions were not checked"
    return f"{found} {where}{rest}" if found == "clean:" else f"{found} in {where}{rest}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def as_json(report: LintReport) -> str:
    data = {
        "schema": _SCHEMA,
        "modelwright": __version__,
        "target": report.options.target.name,
        "auto_complete": report.options.auto_complete,
        "root": str(report.root),
        "models": report.models,
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "ignored": len(report.ignored),
        "findings": [_record(item) for item in report.findings],
        "unused_ignores": [{"rule": item.rule, "models": item.models} for item in report.unused_ignores],
    }
    return json.dumps(data, indent=1)


def _record(item: Finding) -> dict[str, Any]:
    return {
        "rule": item.rule.id,
        "title": item.rule.title,
        "severity": item.severity.value,
        "model": item.model or None,
        "file": item.file,
        "line": item.line,
        "message": item.message,
        "why": item.rule.why,
        "fix": item.fix,
        "ignored": item.ignored or None,
    }


def github(report: LintReport) -> str:
    """Workflow commands: https://docs.github.com/actions/reference/workflow-commands-for-github-actions."""
    lines = []
    for item in report.findings:
        if not item.ignored:
            place = {
                "file": _relative(report, item),
                "line": str(item.line or 1),
                "title": f"{item.rule.id} {item.rule.title}",
            }
            properties = ",".join(f"{key}={_property(value)}" for key, value in place.items())
            lines.append(f"::{item.severity.value} {properties}::{_data(f'{item.message}. Fix: {item.fix}')}")
    return "\n".join([*lines, summary(report)])


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def _relative(report: LintReport, item: Finding) -> str:
    """A path from the current folder, usually the checkout's root: GitHub finds the file by it."""
    return os.path.relpath(report.root / item.file)


def sarif(report: LintReport) -> str:
    """Static Analysis Results Interchange Format 2.1.0, for code scanning."""
    rules = all_rules()
    driver = {
        "name": "modelwright lint",
        "version": __version__,
        "rules": [_sarif_rule(rule) for rule in rules.values()],
    }
    places = {rule_id: index for index, rule_id in enumerate(rules)}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(report, item, places[item.rule.id]) for item in report.findings],
    }
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=1)


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word[0].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", rule.title)),
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _sarif_result(report: LintReport, item: Finding, index: int) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": quote(_relative(report, item))}}
    if item.line:
        physical["region"] = {"startLine": item.line}
    result: dict[str, Any] = {
        "ruleId": item.rule.id,
        "ruleIndex": index,
        "level": item.severity.value,
        "message": {"text": f"{item.message}. Fix: {item.fix}"},
        "locations": [{"physicalLocation": physical}],
    }
    if item.ignored:
        result["suppressions"] = [{"kind": "external", "justification": item.ignored}]
    return result


FORMATS: dict[str, Callable[[LintReport], str]] = {"text": text, "json": as_json, "github": github, "sarif": sarif}
