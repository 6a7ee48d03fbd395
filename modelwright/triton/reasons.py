"""What tritonserver says when a model does not load."""

from __future__ import annotations

import re

_TRACEBACK = re.compile(r"\n\nAt:\n(?:  .*(?:\n|$))+")
_EXCEPTION = re.compile(r"(?:Internal: )?TritonModelException: ")


# The model may be right, but this server lacks something that it needs. Seen on 2.51.0; the last two come from the
# local onnxruntime backend and from Python.
_MISSING_HERE = re.compile(
    r"unable to find backend library|unable to find Python backend based backend library|unable to load shared library"
    r"|unable to find '[^']*' for repo agent|has kind KIND_GPU but no GPUs|invalid or unsupported gpu id"
    r"|but not by the local server|ModuleNotFoundError: No module named"
)


def is_missing_here(reason: str) -> bool:
    """Whether this server lacks what the model needs: a backend, a GPU or a Python package."""
    return _MISSING_HERE.search(reason) is not None


def plain_reason(text: str) -> str:
    """The server's message without the traceback and the exception's name that its Python backend adds."""
    return _EXCEPTION.sub("", _TRACEBACK.sub("", text)).strip().rstrip(";").strip()


def fails_its_batch(reason: str) -> bool:
    """Whether a request's error is one of the onnxruntime backend, which gives it to all requests that ran together."""
    return "onnx runtime error" in reason
