"""Put into the README what it shows of other files: code blocks, and the table of source kinds.

`<!-- path -->` before a code block names the file that the block shows; `<!-- kinds -->` stands before the table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"(<!-- (?P<path>[\w/.]+) -->\n```\w*\n)(?P<text>.*?)(```\n)", re.DOTALL)
_KINDS = re.compile(r"(<!-- kinds -->\n)(\|.*\n)+")


def current(text: str) -> str:
    """The text with every quoted file, and the table of kinds, as they are now."""
    quoted = _BLOCK.sub(lambda match: match[1] + (ROOT / match["path"]).read_text() + match[4], text)
    return _KINDS.sub(lambda match: match[1] + kinds_table(), quoted)


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


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(current(readme.read_text()))
    sys.exit(0)
