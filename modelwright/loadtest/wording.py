"""Numbers as the sentences of a load test write them."""

from __future__ import annotations

import math


def percent(share: float) -> str:
    """0.05 → `5 %`, 0.125 → `12.5 %`."""
    return f"{round(share * 100, 1):g} %"


def change(ratio: float) -> str:
    """1.1 → `+10.0 %`, 0.8 → `-20.0 %`, 4.2 → `4.2 times`."""
    return f"{number(ratio)} times" if ratio >= 3 else f"{round((ratio - 1) * 100, 1) + 0.0:+.1f} %"  # + 0.0: no -0.0


def number(value: float) -> str:
    """Three digits that count, and all before the point: 0.0123, 4.56, 12.3, 4,123."""
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
