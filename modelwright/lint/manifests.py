"""A version's manifest.json as the linter reads it: of any maker and schema, whole or damaged."""

from __future__ import annotations

import json
from typing import Any

from modelwright.fsops import read_file
from modelwright.lint.view import ConfigView
from modelwright.triton.layout import MANIFEST

_LARGEST_BYTES = 10_000_000


def manifest_record(view: ConfigView, version: int) -> dict[str, Any] | None:
    """The manifest's JSON object; None if the file does not exist, {} if it holds something else."""
    try:
        data = json.loads(read_file(view.model_file(version, MANIFEST), _LARGEST_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
