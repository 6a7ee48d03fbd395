"""`[sources]` of modelwright.toml: how much a file that a URI names may have.

    [sources]
    max_gb = 20       # of one source, all its files together
    timeout = 3600    # seconds for one file, all in all; what came by then is kept, and the next build goes on there

None of this is in a step key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelwright.errors import ProjectError
from modelwright.suggest import did_you_mean

_HINT = "write: [sources] and max_gb = 50"


@dataclass(frozen=True)
class FetchLimits:
    max_gb: float = 20.0  # 10^9 bytes
    timeout_s: float = 3600.0

    @property
    def max_bytes(self) -> int:
        return int(self.max_gb * 1e9)


def read_fetch_limits(table: Any, file: str, longest_s: float) -> FetchLimits:
    """`[sources]`, as modelwright.toml has it. Raises ProjectError naming the field."""
    if not isinstance(table, dict):
        raise ProjectError(f"{file}: sources: a table is needed", _HINT)
    for key in table:
        if key not in ("max_gb", "timeout"):
            raise ProjectError(f"{file}: sources.{key}: unknown field", did_you_mean(key, ("max_gb", "timeout")))
    return FetchLimits(
        _number(table, "max_gb", FetchLimits.max_gb, 1e6, file),
        _number(table, "timeout", FetchLimits.timeout_s, longest_s, file),
    )


def _number(table: dict[str, Any], key: str, default: float, most: float, file: str) -> float:
    value = table.get(key, default)
    if type(value) not in (int, float) or not 0 < value <= most:
        raise ProjectError(f"{file}: sources.{key}: a number above 0 is needed, got {value!r}", _HINT)
    return float(value)
