"""The scheme of a URI → who opens it. A scheme of its own, such as `models:/`, is one line and one module."""

from __future__ import annotations

from importlib import import_module

from modelwright.errors import StepError
from modelwright.project.uris import scheme_of
from modelwright.steps.sources.source import RemoteSource

_OBJECTS = "modelwright.steps.sources.objects:open_objects"
_MLFLOW = ("models", "runs")
_HTTP = "modelwright.steps.sources.http:open_http"

# module:function, called with the URI. It returns a RemoteSource, and raises ModelwrightError.
_OPENERS = {
    **dict.fromkeys(("s3", "gs", "gcs", "az", "abfs", "abfss", "as"), _OBJECTS),
    **dict.fromkeys(("https", "http"), _HTTP),
    "file": "modelwright.steps.sources.folder:open_folder",
}


def open_source(uri: str, registry: str = "") -> RemoteSource:
    """What a URI leads to. `registry` is the URI of the project's MLflow, for those of its models.

    Raises ModelwrightError for what is not there or does not answer.
    """
    if scheme_of(uri) in _MLFLOW:
        from modelwright.steps.sources.mlflow import open_mlflow

        return open_mlflow(uri, registry)
    opener = _OPENERS.get(scheme_of(uri))
    if opener is None:
        raise StepError(f"{uri}: the scheme {scheme_of(uri)} is not known", f"known are {', '.join(_OPENERS)}")
    module, _, function = opener.partition(":")
    found: RemoteSource = getattr(import_module(module), function)(uri)
    return found
