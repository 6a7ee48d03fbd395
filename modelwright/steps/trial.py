"""A model in the real server before it is published: a small repository of it and what it runs, and a client."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelwright.errors import ServerError, VerifyError
from modelwright.server.session import serve
from modelwright.steps.advice import advice
from modelwright.steps.context import ServedModel, StepContext
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
    """Serve `context.served` from a repository below `scratch`. Raises VerifyError when a model does not load.

    An error of the block about a module that a request did not find becomes one that says what to do.
    """
    repository = scratch / "repository"
    for model in context.served:
        folder = repository / model.name
        folder.mkdir(parents=True)
        (folder / CONFIG).write_text(model.config)
        for number, version in model.versions.items():
            shutil.copytree(version, folder / str(number), copy_function=_copy_of(model))
        for name, file in model.beside.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name)
        if model.top:
            shutil.copytree(model.top, folder, copy_function=_copy_of(model), dirs_exist_ok=True)
    log = scratch / "server.log"
    incomplete = not all(model.is_complete for model in context.served)
    try:
        with serve(
            context.server,
            context.target,
            repository,
            log=log,
            say=context.say,
            auto_complete=incomplete,
            startup_timeout_s=context.startup_timeout_s,
        ) as served:
            for name, reason in served.refused.items():
                message, hint = advice(context, reason, served.environment.python_version)
                where = f"the server does not load {name}: {reason}"
                raise NotLoadedError(message or where, hint or "it was not published", reason)
            with connect(served.grpc, served.request_timeout_s) as client:
                try:
                    yield client
                except (ServerError, VerifyError) as error:
                    message, hint = advice(context, error.message, served.environment.python_version)
                    if hint:
                        raise VerifyError(message or error.message, hint) from error
                    raise
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


def _copy_of(model: ServedModel) -> Callable[[str, str], object]:
    """Weights of a prebuilt model can have any name, so none of its files is linked. Neither is a published one: a
    link changes its ctime, and servers that poll load what changed."""
    return shutil.copyfile if model.is_prebuilt or model.is_published else _link


def _link(source: str, target: str) -> None:
    """Weights are large and the trial is short; what onnxruntime refuses to see linked is copied."""
    if source.endswith(".data"):
        shutil.copyfile(source, target)
    else:
        os.link(source, target)
