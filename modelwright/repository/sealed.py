"""JSON files that carry a digest of themselves, so that a bit that flips on a disk shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelwright.digest import canonical, parse_json, sha256

SEAL = "seal"


def sealed(data: Mapping[str, Any]) -> str:
    """The text of a file with this content, and its seal."""
    content = {name: value for name, value in data.items() if name != SEAL}
    return json.dumps({**content, SEAL: sha256(canonical(content))}, indent=1) + "\n"


def unsealed(text: bytes) -> dict[str, Any]:
    """The content of such a file, without the seal. Raises ValueError for one that is not as it was written.

    A file without a seal was written by an older Modelwright, and is read as it is.
    """
    data = parse_json(text)
    if not isinstance(data, dict):
        raise ValueError("expected a JSON object")
    if SEAL in data and sealed(data).encode() != text:
        raise ValueError("it is not as it was written: its digest does not fit")
    return {name: value for name, value in data.items() if name != SEAL}
