"""[[lint.ignore]] of modelwright.toml: a rule that does not hold here, for some models or all, and why."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Ignore:
    """`models` are names with wildcards: `bert*`."""

    rule: str
    reason: str
    models: tuple[str, ...] = ("*",)

    def covers(self, rule: str, model: str) -> bool:
        """Whether a rule's findings of a model are passed over; '.' stands for the repository itself."""
        return rule == self.rule and any(fnmatchcase(model or ".", pattern) for pattern in self.models)
