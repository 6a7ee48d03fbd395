"""Load errors as a person wants them."""

from __future__ import annotations

import re

_TRACEBACK = re.compile(r"\n\nAt:\n(?:  .*(?:\n|$))+")
_EXCEPTION = re.compile(r"(?:Internal: )?TritonModelException: ")


def plain_reason(text: str) -> str:
    """What tritonserver says, without the Python traceback and the exception's name that its Python backend adds."""
    return _EXCEPTION.sub("", _TRACEBACK.sub("", text)).strip().rstrip(";").strip()
