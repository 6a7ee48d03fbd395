"""All rules, found in the modules of rules/: a rule is added by writing it there."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from modelwright.errors import ModelwrightError, ProjectError
from modelwright.lint import rules
from modelwright.lint.rule import Rule
from modelwright.project.ignores import Ignore
from modelwright.suggest import did_you_mean


@cache
def all_rules() -> dict[str, Rule]:
    """Every rule by its id, in order."""
    found: dict[str, Rule] = {}
    for module in pkgutil.iter_modules(rules.__path__, f"{rules.__name__}."):
        for rule in vars(importlib.import_module(module.name)).values():
            if isinstance(rule, Rule):
                assert found.setdefault(rule.id, rule) is rule, f"two rules are called {rule.id}"
    return dict(sorted(found.items()))


def find_rule(name: str) -> Rule:
    """A rule by its id. Raises ModelwrightError for an unknown one."""
    if name.upper() not in all_rules():
        raise ModelwrightError(f"unknown rule '{name}'", did_you_mean(name.upper(), all_rules()))
    return all_rules()[name.upper()]


def check_ignores(ignores: Sequence[Ignore], file: str) -> None:
    """Raise ProjectError for an [[lint.ignore]] of an unknown rule. `file` is the file that has them."""
    for index, ignore in enumerate(ignores):
        if ignore.rule not in all_rules():
            hint = did_you_mean(ignore.rule, all_rules())
            raise ProjectError(f"{file}: lint.ignore[{index}].rule: unknown rule '{ignore.rule}'", hint)
