"""URIs where a model.yaml may name a file or folder: `path: s3://bucket/models/m.onnx`.

    class ToySource(SourceSpec):
        path: SourcePath = Field(description="A file of this folder, or its URI.")

A URI is resolved into `source.lock` (`project/source_lock.py`), and a step fetches what that names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, WithJsonSchema

from modelwright.project.spec import SourceSpec, inside_folder

_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a path may have lost one of two slashes; one letter is a drive
_SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "abfss", "as", "https", "http", "file")
_SECRETS = ("x-amz-signature", "x-goog-signature", "x-amz-security-token", "sig", "token", "access_token")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Resolved:
    """Marks the fields of a source that may hold a URI, which source.lock resolves."""


def scheme_of(text: str) -> str:
    """`s3` of `s3://bucket/m.onnx`, in lower case; '' for a path."""
    found = _URI.match(text)
    return found[1].lower() if found else ""


def is_uri(text: str) -> bool:
    return bool(scheme_of(text))


def is_file_scheme(text: str) -> bool:
    """Whether files are fetched by its scheme: `models:/digits@live` names a model of a registry instead."""
    return scheme_of(text) in _SCHEMES


def file_uri(uri: str) -> str:
    """A URI of a file or folder, as it is written. Raises ValueError."""
    scheme = scheme_of(uri)
    if scheme not in _SCHEMES:
        raise ValueError(f"{scheme}:// is no scheme that files are fetched by: s3, gs, az, https and file are")
    if not uri[len(scheme) :].startswith("://") or not uri.isprintable() or " " in uri:
        raise ValueError(f"{uri!r} is no URI: write such as {scheme}://bucket/models/m.onnx")
    parts = urlsplit(uri)
    if "@" in parts.netloc or any(name.lower() in _SECRETS for name, _ in parse_qsl(parts.query)):
        raise ValueError("credentials do not belong in a URI: give them as the store's own library reads them")
    if scheme == "http" and not is_loopback(uri):
        raise ValueError(
            f"{uri}: http:// is taken from this machine alone, as others can change what it carries: use https://"
        )
    if scheme in ("http", "https") and (not parts.hostname or parts.path in ("", "/")):
        raise ValueError(f"{uri}: names no file")
    if scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise ValueError(f"{uri}: write file:///srv/models/m.onnx")
    return uri


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def file_name(uri: str) -> str:
    """The name of the file or folder that a URI ends with: `m.onnx`."""
    if scheme_of(uri) in ("http", "https", "file"):
        return unquote(PurePosixPath(urlsplit(uri).path).name)
    return PurePosixPath(uri.partition("://")[2]).name


def uris_of(source: SourceSpec) -> dict[str, str]:
    """{field of model.yaml: URI} of what a source has in other places."""
    found = {}
    for name, field in type(source).model_fields.items():
        value = getattr(source, name)
        if isinstance(value, str) and is_uri(value) and _is_marked((field.annotation, field.metadata)):
            found[f"source.{name}"] = value
    return found


def _is_marked(item: Any) -> bool:
    if isinstance(item, list | tuple):
        return any(_is_marked(each) for each in item)
    return isinstance(item, Resolved) or _is_marked(list(get_args(item)))


def _path_or_uri(value: str) -> str:
    return file_uri(value) if is_uri(value) else inside_folder(value)


SourcePath = Annotated[
    str, AfterValidator(_path_or_uri), Resolved(), WithJsonSchema({"type": "string", "minLength": 1})
]
