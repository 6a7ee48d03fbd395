"""Whole models in a registry: a folder is logged as the artifacts of a run, and fetched again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from modelwright.errors import TrackingError
from modelwright.project.project import ProjectConfig
from modelwright.tracking.recorder import check_reachable, order_of, run_child

_COMMAND = "import sys; sys.path.remove(''); from modelwright.tracking.bundle_child import main; main()"
_PATIENCE_S, _SLOWEST_BYTES_PER_S = 600.0, 500_000
_BOUNDS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}  # a large file is one request


def log_folder(project: ProjectConfig, model: str, folder: Path) -> str:
    """Log a folder as the newest bundle of a model: the id of its run. Raises TrackingError."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return str(_carry(project, "push", model, folder, _PATIENCE_S + size / _SLOWEST_BYTES_PER_S)["run"])


def fetch_folder(project: ProjectConfig, model: str, into: Path) -> tuple[str, Path]:
    """The newest bundle of a model, or that of `runs:/ID`: the id of its run, and where it lies now.

    Raises TrackingError for a model that has none, and names those that have one.
    """
    answer = _carry(project, "pull", model, into, 10 * _PATIENCE_S)
    return str(answer["run"]), Path(answer["folder"])


def _carry(
    project: ProjectConfig, action: Literal["push", "pull"], model: str, folder: Path, patience_s: float
) -> dict[str, Any]:
    check_reachable(project)
    order = {"action": action, "order": order_of(project), "model": model, "folder": str(folder)}
    for answer in run_child(project, _COMMAND, order, patience_s, _BOUNDS):
        if problem := answer.get("problem"):
            raise TrackingError(f"{project.tracking.shown}: {problem}")
        return answer
    raise TrackingError(f"{project.tracking.shown}: {json.dumps(model)}: no answer")
