"""`[tracking]` of modelwright.toml: whether builds are recorded in MLflow, and in which.

    [tracking]
    mlflow = true
    uri = "http://mlflow.example:5000"       # a server; without it, a database in .modelwright/mlflow
    experiment = "digits"                    # without it, the name of the project's folder
    models = false                           # versions are registered without their files

The same server is asked where a source names a model of a registry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelwright.errors import ProjectError
from modelwright.suggest import did_you_mean

_HINT = 'write: [tracking] and mlflow = true, with uri = "http://localhost:5000" for a server'
_SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_URI = re.compile(r"([a-z]+)(?:\+[a-z0-9]+)?://.+|databricks")
_LONGEST_NAME = 250
EMBEDDED = "mlflow"  # the folder in .modelwright


@dataclass(frozen=True)
class Tracking:
    mlflow: bool = False
    uri: str = ""  # "" for the database of the project itself
    experiment: str = ""  # "" for the name of the project's folder
    models: bool = True  # whether versions are registered with their files

    def registry(self, state: Path) -> str:
        """The URI as MLflow takes it; `state` is the project's .modelwright."""
        return self.uri or f"sqlite:///{(state / EMBEDDED / 'mlflow.db').as_posix()}"

    @property
    def shown(self) -> str:
        """As messages show it: the URI of a database can hold a password."""
        return re.sub(r"//[^/@]*@", "//…@", self.uri) if self.uri else "MLflow in .modelwright/mlflow"

    @property
    def server(self) -> tuple[str, int] | None:
        """The host and the port of an HTTP server; None for what is none."""
        parts = urlsplit(self.uri)
        if parts.scheme not in _SERVERS or not parts.hostname:
            return None
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def read_tracking(table: Any, file: str) -> Tracking:
    """`[tracking]`, as modelwright.toml has it. Raises ProjectError naming the field."""
    if not isinstance(table, dict):
        raise ProjectError(f"{file}: tracking: a table is needed", _HINT)
    known = ("mlflow", "uri", "experiment", "models")
    for name in table:
        if name not in known:
            raise ProjectError(f"{file}: tracking.{name}: unknown field", did_you_mean(name, known))
    mlflow, models = (_flag(table, name, default, file) for name, default in (("mlflow", False), ("models", True)))
    for name in ("uri", "experiment"):
        value = table.get(name, "")
        if not isinstance(value, str) or (name in table and not value.strip()):
            raise ProjectError(f"{file}: tracking.{name}: a text is needed, got {value!r}", _HINT)
    experiment = table.get("experiment", "")
    if len(experiment) > _LONGEST_NAME or not experiment.isprintable():
        raise ProjectError(
            f"{file}: tracking.experiment: a name of one line, at most {_LONGEST_NAME} characters, is needed"
        )
    return Tracking(mlflow, _checked_uri(table.get("uri", ""), file), experiment, models)


def _flag(table: dict[str, Any], name: str, default: bool, file: str) -> bool:
    value = table.get(name, default)
    if type(value) is not bool:
        raise ProjectError(f"{file}: tracking.{name}: true or false is needed, got {value!r}", _HINT)
    return value


def _checked_uri(uri: str, file: str) -> str:
    if not uri:
        return ""
    where, found = f"{file}: tracking.uri", _URI.fullmatch(uri)
    scheme = found[1] if found else None
    if found is None or (scheme and scheme not in (*_SERVERS, *_DATABASES, "databricks")):
        raise ProjectError(f"{where}: is no URI that MLflow takes: {uri!r}", 'such as "http://localhost:5000"')
    try:
        parts = urlsplit(uri)
        bad = scheme in _SERVERS and (not parts.hostname or parts.port == 0)
    except ValueError:
        bad = True
    if bad:
        raise ProjectError(f"{where}: names no server: {uri!r}", 'such as "http://localhost:5000"')
    if scheme in _SERVERS and "@" in parts.netloc:
        hint = "MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        raise ProjectError(f"{where}: credentials do not belong in a URI", hint)
    return uri.rstrip("/") if scheme in _SERVERS else uri
