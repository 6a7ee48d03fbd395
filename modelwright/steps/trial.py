"""A model in the real server before it is published: a small repository of it and what it runs, and a client."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelwright.errors import VerifyError
from modelwright.server.session import serve
from modelwright.steps.context import ServedModel, StepContext
from modelwright.steps.python import PACKAGES
from modelwright.steps.vendor import abi_conflicts
from modelwright.triton.client import Client, connect
from modelwright.triton.layout import CONFIG

_OUTCOMES = ("success", "fail")


class NotLoadedError(VerifyError):
    """The server does not load a model; `reason` is its own."""

    def __init__(self, message: str, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


@contextlib.contextmanager
def trial(context: StepContext, scratch: Path) -> Iterator[Client]:
    """Serve `context.served` from a repository below `scratch`. Raises VerifyError when a model does not load."""
    repository = scratch / "repository"
    for model in context.served:
        folder = repository / model.name
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text(model.config)
        for number, version in model.versions.items():
            shutil.copytree(version, folder / str(number), copy_function=_copy_of(model))
        if model.top:
            shutil.copytree(model.top, folder, copy_function=_copy_of(model), dirs_exist_ok=True)
    log = scratch / "server.log"
    incomplete = not all(model.is_complete for model in context.served)
    try:
        with serve(
            context.server, context.target, repository, log=log, say=context.say, auto_complete=incomplete
        ) as served:
            for name, reason in served.refused.items():
                hint = _hint(context, served.environment.python_version)
                raise NotLoadedError(f"the server does not load {name}: {reason}", hint, reason)
            with connect(served.grpc) as client:
                yield client
    finally:
        shutil.rmtree(repository, ignore_errors=True)
        if log.exists():
            context.say(log.read_text(errors="replace"))
            log.unlink()


def runs_saved(client: Client, models: Sequence[str]) -> int:
    """Requests less executions of these models since they were loaded: how often a request ran with another one."""
    stats = [entry for model in models for entry in client.statistics(model)["model_stats"]]
    requests = sum(int(entry["inference_stats"][outcome].get("count", 0)) for entry in stats for outcome in _OUTCOMES)
    return requests - sum(int(entry.get("execution_count", 0)) for entry in stats)


def _hint(context: StepContext, python_version: str) -> str:
    """What is vendored is for the target's Python; the local server's may be another, which cannot load all of it."""
    python = ".".join(python_version.split(".")[:2])
    versions = [version for model in context.served for version in model.versions.values()]
    conflicts = [name for version in versions for name in abi_conflicts(version / PACKAGES, python)]
    if not conflicts:
        return "it was not published"
    wanted = context.target.python
    reason = f"{conflicts[0]} is for the target's Python {wanted}, the local server runs {python}"
    return f"{reason}: put a python{wanted} on PATH, remove .modelwright/server, and build again"


def _copy_of(model: ServedModel) -> Callable[[str, str], object]:
    """Weights of a prebuilt model can have any name, so none of its files is linked."""
    return shutil.copyfile if model.is_prebuilt else _link


def _link(source: str, target: str) -> None:
    """Weights are large and the trial is short; what onnxruntime refuses to see linked is copied."""
    if source.endswith(".data"):
        shutil.copyfile(source, target)
    else:
        os.link(source, target)
