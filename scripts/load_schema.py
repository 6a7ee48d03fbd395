"""schemas/load-result.schema.json from the models in modelwright/loadtest/document.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelwright.loadtest.document import Result

TARGET = Path(__file__).resolve().parent.parent / "schemas" / "load-result.schema.json"


def schema_text() -> str:
    """The schema, draft 2020-12, which is the one that pydantic writes."""
    made: dict[str, Any] = Result.model_json_schema()
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by `make docs` from modelwright/loadtest/document.py; docs/load-result.md explains it.",
    }
    return json.dumps(head | made, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(schema_text(), encoding="utf-8")
