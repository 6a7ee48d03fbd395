"""Placeholders of templates that were never filled in: `${max_batch_size}`, `{{ name }}`, `<N>`, `%(dims)s`.

Repositories hold templates of configs, and people lint them, or forget to fill one in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLACEHOLDERS = {
    r"\$\{[^}\n]*\}": "tools/fill_template.py of tensorrtllm_backend, or envsubst",
    r"\{\{.*?(?:\}\}|$)|\{[%#].*?(?:[%#]\}|$)": "Jinja, Helm or cookiecutter",
    r"%\([A-Za-z_]\w*\)[sdif]": "Python's operator %",
    r"\$[A-Za-z_]\w*": "envsubst or a shell script",
    r"@[A-Za-z_]\w*@": "configure_file of CMake, or a script",
    r"<\s*[A-Za-z_][\w .-]*>": "",
    r"(?<=[:\[,])\s*\{\s*[A-Za-z_]\w*\s*\}": "str.format of Python, or a script",
}
_LONGEST = 60


@dataclass(frozen=True)
class Placeholder:
    """`text` is the placeholder, `filled_by` names what puts a value in its place; '' where a person does."""

    text: str
    filled_by: str

    @property
    def fix(self) -> str:
        done = f"Fill it in with {self.filled_by}" if self.filled_by else "Write a value in its place"
        return f"{done}, and lint what comes out; keep the template itself outside the repository."


def placeholder(text: str, column: int | None = None) -> Placeholder | None:
    """The first placeholder in a text; with a column, which counts from 1, the one that reaches over it."""
    for pattern, filled_by in _PLACEHOLDERS.items():
        for match in re.finditer(pattern, text):
            if column is None or match.start() < column <= match.end() + 1:
                shown = match[0].strip()
                return Placeholder(shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…", filled_by)
    return None
