"""[[lint.ignore]] of modelwright.toml: a rule that does not hold here, for some models or all, and why."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelwright.lint.engine import Finding


@dataclass(frozen=True)
class Ignore:
    """`models` are names with wildcards: `bert*`."""

    rule: str
    reason: str
    models: tuple[str, ...] = ("*",)

    def covers(self, finding: Finding) -> bool:
        named = finding.model or "."
        return finding.rule.id == self.rule and any(fnmatchcase(named, pattern) for pattern in self.models)
