"""What `pip install modelwright` alone leaves out, and the extras that bring it.

Linting and adopting need none of it. Whatever else a message wants installed is named where it is needed.
"""

from __future__ import annotations

from importlib.util import find_spec

from modelwright.errors import ModelwrightError

# Extra → what it brings, by import name. What several bring belongs to the first: nobody installs less than that.
EXTRAS = {
    "build": ("numpy", "rich", "tritonclient", "onnx", "onnxruntime"),
    "client": ("numpy", "rich", "tritonclient"),
    "load": ("numpy", "rich", "tritonclient", "locust", "hpack", "psutil"),
}
# Modules that come with others of an extra.
_BROUGHT_BY = {"ml_dtypes": "numpy", "grpc": "tritonclient", "geventhttpclient": "tritonclient", "gevent": "locust"}


def require(what: str, extra: str, error: type[ModelwrightError] = ModelwrightError) -> None:
    """Raise `error` where a module of an extra is missing. `what` needs it: "a build"."""
    missing = [name for name in EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise error(*_lacks(what, missing, extra))


def install(extra: str) -> str:
    """What to type for an extra."""
    return f"pip install '{requirement(extra)}'"


def requirement(extra: str) -> str:
    """What pip is given for an extra."""
    return f"modelwright[{extra}]"


def as_missing(error: ModuleNotFoundError) -> ModelwrightError | None:
    """The error to show instead, where what could not be imported comes with an extra and is not installed."""
    name = (error.name or "").partition(".")[0]
    name = _BROUGHT_BY.get(name, name)
    extra = next((extra for extra, names in EXTRAS.items() if name in names), None)
    return ModelwrightError(*_lacks("this", [name], extra)) if extra and find_spec(name) is None else None


def _lacks(what: str, missing: list[str], extra: str) -> tuple[str, str]:
    """The message and the hint."""
    return f"{what} needs {', '.join(missing)}: not installed", install(extra)
