"""Put into the README what it shows of other files: code blocks, and the tables of source kinds and techniques.

`<!-- path -->` before a code block names the file that the block shows; of a model.yaml, `<!-- path variants -->` shows
its variants and `<!-- path without variants -->` the rest. `<!-- kinds -->` and `<!-- techniques -->` stand before the
tables.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(
    r"(<!-- (?P<path>[\w/.]+)(?P<part> variants| without variants)? -->\n```\w*\n)(?P<text>.*?)(```\n)", re.DOTALL
)
_KINDS = re.compile(r"(<!-- kinds -->\n)(\|.*\n)+")
_TECHNIQUES = re.compile(r"(<!-- techniques -->\n)(\|.*\n)+")
_VARIANTS = re.compile(r"^variants:\n(?:[ #].*\n|\n)*", re.MULTILINE)


def current(text: str) -> str:
    """The text with every quoted file, and the tables, as they are now."""
    quoted = _BLOCK.sub(lambda match: match[1] + _quoted(match["path"], match["part"] or "") + match[5], text)
    quoted = _TECHNIQUES.sub(lambda match: match[1] + techniques_table(), quoted)
    return _KINDS.sub(lambda match: match[1] + kinds_table(), quoted)


def _quoted(path: str, part: str) -> str:
    text = (ROOT / path).read_text()
    if part == " variants":
        found = _VARIANTS.search(text)
        return found[0] if found else ""
    return _VARIANTS.sub("", text) if part else text


def kinds_table() -> str:
    """The kinds of source that Modelwright has by itself."""
    from modelwright.kinds.registry import registered

    known = registered()
    rows = [("`source.kind`", "what it takes", "verified"), ("---", "---", "---")]
    rows += [
        (f"`{name}`", kind.takes, kind.verified)
        for name, kind in known.kinds.items()
        if name not in known.distributions
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def techniques_table() -> str:
    """The techniques that variants are made by."""
    from modelwright.variants.registry import find, names

    rows = [("technique", "what it makes", "works on", "needs"), ("---", "---", "---", "---")]
    for technique in map(find, names()):
        needs = ", ".join(f"`{needs.install}`" for needs in technique.needs) or "-"
        rows.append((f"`{technique.name}`", technique.summary, f"the {technique.works_on}", needs))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(current(readme.read_text()))
    sys.exit(0)
