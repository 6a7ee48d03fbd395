"""What changes what is served moves the alias `live` in MLflow, too, where the project records its builds there."""

from __future__ import annotations

from collections.abc import Collection

from modelwright.errors import TrackingError
from modelwright.project.project import ProjectConfig


def follow(project: ProjectConfig, models: Collection[str]) -> str:
    """Have the alias follow what these models serve now: "" or why it does not. Where nothing is tracked, nothing."""
    if not project.tracking.mlflow:
        return ""
    from modelwright.tracking import recorder

    try:
        recorder.check_installed(project)
    except TrackingError as error:
        return error.message
    return recorder.send(project, models).warning
