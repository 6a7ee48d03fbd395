"""Numbers and sizes as people read them: messages, tables and reports write them with these functions.

Three digits count, units follow a space, and what is not known is `n/a`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

NOT_KNOWN = "n/a"
TIMES = "\N{MULTIPLICATION SIGN}"


def number(value: float | None) -> str:
    """Three significant digits, all before the point, thousands with commas: `0.0123`, `12.3`, `4,123`."""
    if value is None or not math.isfinite(value):
        return NOT_KNOWN
    if not value:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), 6)}f}"


def exact(value: float) -> str:
    """A number that somebody wrote down, as they wrote it: `20`, not `20.0`."""
    return f"{value:,.6g}"


def size(size_bytes: float) -> str:
    """`512 B`, `4.2 kB`, `1.1 GB`: powers of 1,000, as disks are sold."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"


def milliseconds(value: float | None) -> str:
    return with_unit(value, "ms")


def seconds(value: float) -> str:
    return with_unit(value, "s")


def age(value_s: float) -> str:
    """How long ago something was: `12 s`, `5 min`, `3 h`, `40 d`."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if value_s >= length_s:
            return f"{int(value_s // length_s)} {unit}"
    return f"{max(int(value_s), 0)} s"


def rate(value: float | None) -> str:
    return with_unit(value, "req/s")


def with_unit(value: float | None, unit: str) -> str:
    return number(value) if value is None else f"{number(value)} {unit}"


def percent(share: float, digits: int = 3) -> str:
    """A share 0..1: `5 %`, `12.3 %`."""
    return f"{share * 100:.{digits}g} %"


def change(ratio: float) -> str:
    """A ratio as a change: `+3.1 %`, `-12.3 %`; from a doubling on as a factor, `× 2.40`."""  # noqa: RUF002 (the sign)
    if not math.isfinite(ratio) or ratio >= 2:
        return f"{TIMES} {number(ratio)}"
    points = round((ratio - 1) * 100, 1) + 0.0  # + 0.0: no -0.0
    return f"{points:+.1f} %" if points else "0.0 %"


def counted(count: int, noun: str) -> str:
    """`1 request`, `2,000 requests`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def sentence(text: str) -> str:
    """A message as a sentence: the first letter large, a full stop."""
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith(".") else ".")


def printable(text: str) -> str:
    """What somebody else wrote, for one line of a terminal: control characters and line breaks are escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def metrics(values: Mapping[str, float]) -> str:
    """The first metric: `0.9944` for accuracy, `cosine_min 1.0000` for one of another name; `-` for none."""
    for name, value in values.items():
        return f"{value:.4f}" if name == "accuracy" else f"{name} {value:.4f}"
    return "-"
