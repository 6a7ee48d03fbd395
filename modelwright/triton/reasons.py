"""Load errors as a person wants them."""

from __future__ import annotations

import re

_TRACEBACK = re.compile(r"\n\nAt:\n(?:  .*(?:\n|$))+")
_EXCEPTION = re.compile(r"(?:Internal: )?TritonModelException: ")


# What the server says of a model that needs something that is not there, rather than of a model that is wrong. Seen on
# 2.51.0, but for the part about the GPU's memory; the last two are the local onnxruntime backend's and Python's.
_LACKING = re.compile(
    r"unable to find backend library|unable to find Python backend based backend library|unable to load shared library"
    r"|unable to find '[^']*' for repo agent|has kind KIND_GPU but no GPUs|invalid or unsupported gpu id"
    r"|but not by the local server|ModuleNotFoundError: No module named"
)


def is_lacking(reason: str) -> bool:
    """Whether a model does not load for want of something this server has not: a backend, a GPU, a Python package."""
    return _LACKING.search(reason) is not None


def plain_reason(text: str) -> str:
    """What tritonserver says, without the Python traceback and the exception's name that its Python backend adds."""
    return _EXCEPTION.sub("", _TRACEBACK.sub("", text)).strip().rstrip(";").strip()
