"""Put what the README quotes into it: `<!-- path -->` before a code block names the file that the block shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"(<!-- (?P<path>[\w/.]+) -->\n```\w*\n)(?P<text>.*?)(```\n)", re.DOTALL)


def current(text: str) -> str:
    """The text with every quoted file as it is now."""
    return _BLOCK.sub(lambda match: match[1] + (ROOT / match["path"]).read_text() + match[4], text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(current(readme.read_text()))
    sys.exit(0)
