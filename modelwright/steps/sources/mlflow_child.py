"""The process that asks MLflow what a model URI stands for, and fetches its files. A program of its own."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

_MODEL = re.compile(r"models:/([^/@]+)(?:@(.+)|/(.+))")
_DOWN = ("Max retries exceeded", "API request to", "Connection", "timed out", "Timeout", "unable to open database")
_LONGEST = 300


class _NotThereError(Exception):
    """The registry answers, and does not have it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


def fetched(uri: str, registry: str, folder: str) -> dict[str, str]:
    """Where its files lie now, and what the URI stands for: `models:/digits/3`."""
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(registry)
    mlflow.set_registry_uri(registry)
    answer = {"resolved": uri}
    if found := _MODEL.fullmatch(uri):
        name, alias, number = found.groups()
        version = number or _version_of(MlflowClient(registry, registry), name, alias)
        _check_there(MlflowClient(registry, registry), name, version)
        answer = {"resolved": f"models:/{name}/{version}", "version": version}
    return {**answer, "folder": download_artifacts(artifact_uri=answer["resolved"], dst_path=folder)}


def _version_of(client: Any, name: str, alias: str) -> str:
    aliases = {str(known): str(number) for known, number in _model(client, name).aliases.items()}
    if alias not in aliases:
        there = ", ".join(f"@{known}" for known in sorted(aliases)) or "none"
        raise _NotThereError(
            f"the model {name} has no alias '{alias}': it has {there}", "name one of them, or a version"
        )
    return aliases[alias]


def _check_there(client: Any, name: str, version: str) -> None:
    _model(client, name)
    there = sorted(int(item.version) for item in client.search_model_versions(f"name='{name}'"))
    if int(version) not in there:
        listed = ", ".join(map(str, there[-10:])) or "none"
        raise _NotThereError(f"the model {name} has no version {version}: it has {listed}", "name one of them")


def _model(client: Any, name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    there = sorted(item.name for item in client.search_registered_models(max_results=20))
    raise _NotThereError(
        f"there is no model '{name}' in the registry: {', '.join(there) or 'it is empty'}", "see to the name"
    )


def main() -> None:
    order = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what MLflow prints is not the answer
    answer: dict[str, Any]
    try:
        answer = fetched(order["uri"], order["registry"], order["folder"])
    except _NotThereError as error:
        answer = {"problem": str(error), "hint": error.hint, "down": False}
    except Exception as error:
        text = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
        down = any(sign in text for sign in _DOWN)
        reason = f"the registry does not answer: {text}" if down else text
        answer = {
            "problem": reason,
            "hint": "see to [tracking] in modelwright.toml, and try again" if down else "",
            "down": down,
        }
    answers.write(json.dumps(answer))
    answers.flush()


if __name__ == "__main__":
    main()
