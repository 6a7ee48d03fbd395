"""docs/lint.md from the lint rules themselves."""

from __future__ import annotations

from pathlib import Path

from modelwright.lint.explain import document

if __name__ == "__main__":
    target = Path(__file__).resolve().parent.parent / "docs" / "lint.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(document())
