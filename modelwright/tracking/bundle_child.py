"""The process that logs whole models to a registry, and fetches them. A program of its own, as `child` is.

A bundle is a folder as `modelwright push` fills it, with a model and those that it runs. It becomes the artifacts of a
run; a tag of the registered model names the run that has its newest bundle.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from modelwright.facts.part import Part, validated
from modelwright.tracking.child import Order, Registry, problem_of, unless

BUNDLE_TAG = "modelwright.bundle"  # of a registered model: the run
_FOLDER = "repository"  # of the run's artifacts
_RUN = "runs:/"


class BundleOrder(Part):
    action: Literal["push", "pull"]
    order: Order
    model: str  # its name; to pull, also the URI of a run
    folder: str


def push(registry: Registry, asked: BundleOrder) -> dict[str, Any]:
    client, model = registry.client, asked.model
    tags = {"modelwright.model": model, "modelwright.status": "bundle"}
    run = client.create_run(registry.experiment_id(), tags=tags, run_name=f"{model} repository")
    try:
        client.log_artifacts(run.info.run_id, asked.folder, _FOLDER)
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    client.set_terminated(run.info.run_id)
    with unless("RESOURCE_ALREADY_EXISTS"):
        client.create_registered_model(model)
    client.set_registered_model_tag(model, BUNDLE_TAG, run.info.run_id)
    return {"run": run.info.run_id}


def pull(registry: Registry, asked: BundleOrder) -> dict[str, Any]:
    """Raises ValueError, which says what is there, for a model without a bundle."""
    from mlflow.artifacts import download_artifacts

    run_id = (
        asked.model.removeprefix(_RUN).partition("/")[0] if asked.model.startswith(_RUN) else _bundle(registry, asked)
    )
    if not registry.client.list_artifacts(run_id, _FOLDER):
        raise ValueError(f"run {run_id} holds no model that modelwright track push logged")
    uri = f"{_RUN}{run_id}/{_FOLDER}"
    download_artifacts(artifact_uri=uri, dst_path=asked.folder, tracking_uri=asked.order.registry)
    return {"run": run_id, "folder": str(Path(asked.folder) / _FOLDER)}


def _bundle(registry: Registry, asked: BundleOrder) -> str:
    models = {item.name: item.tags.get(BUNDLE_TAG) for item in registry.models()}
    if run_id := models.get(asked.model):
        return str(run_id)
    there = ", ".join(sorted(name for name, run in models.items() if run)) or "none"
    if asked.model in models:
        raise ValueError(f"{asked.model} is registered, and its files are not there; models with files: {there}")
    raise ValueError(f"there is no model {asked.model}; models with files: {there}")


def main() -> None:
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    asked = validated(BundleOrder, json.loads(sys.stdin.buffer.read()))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what MLflow prints is for the log
    try:
        answer = (push if asked.action == "push" else pull)(Registry(asked.order), asked)
    except Exception as error:
        answer = {"problem": problem_of(error)}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
