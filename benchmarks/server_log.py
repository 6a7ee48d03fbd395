"""What a tritonserver's log says about when it loaded a model."""

from __future__ import annotations

import re
import time
from pathlib import Path

_LINE = re.compile(r'^I\d{4} \d\d:(\d\d):([\d.]+) \d+ \S+ "(loading: |successfully loaded \')(\w+)[:\']', re.MULTILINE)
_QUARTER_S = 900.0  # time zones differ by whole quarters of an hour


def load_times(log: Path, model: str, since_ns: int) -> list[tuple[int, int]]:
    """From the begin to the end of each load since then, at most minutes ago, on the monotonic clock."""
    now_ns, now_s = time.monotonic_ns(), time.time()
    spans: list[tuple[int, int]] = []
    began_ns = 0
    for minute, second, what, name in _LINE.findall(log.read_text(errors="replace")):
        ago_s = (now_s - (60 * int(minute) + float(second))) % _QUARTER_S
        at_ns = now_ns - round(ago_s * 1e9)
        if name != model or at_ns < since_ns:
            continue
        if what.startswith("loading"):
            began_ns = at_ns
        elif began_ns:
            spans.append((began_ns, at_ns))
            began_ns = 0
    return spans
