"""A model in the real server before it is published: a small repository of it and what it runs, and a client."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelwright.errors import ModelwrightError, VerifyError
from modelwright.server.session import serve
from modelwright.steps import imports
from modelwright.steps.context import ServedModel, StepContext
from modelwright.steps.python import OWN, PACKAGES
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
    """Serve `context.served` from a repository below `scratch`. Raises VerifyError when a model does not load.

    An error of the block that is about a module that was not found, in a request, becomes one that says what to do.
    """
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
            context.server,
            context.target,
            repository,
            log=log,
            say=context.say,
            auto_complete=incomplete,
            startup_timeout_s=context.startup_timeout_s,
        ) as served:
            for name, reason in served.refused.items():
                if advice := _import_advice(context, reason):
                    raise NotLoadedError(*advice, reason)
                hint = _hint(context, served.environment.python_version)
                raise NotLoadedError(f"the server does not load {name}: {reason}", hint, reason)
            with connect(served.grpc, served.request_timeout_s) as client:
                try:
                    yield client
                except ModelwrightError as error:
                    if advice := _import_advice(context, error.message):
                        raise VerifyError(*advice) from error
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


def _import_advice(context: StepContext, error: str) -> tuple[str, str] | None:
    """What to say, and what to do, where an error is about a module that the server's Python models do not have."""
    if gone := imports.left_standard_library(error):
        return (
            f"a Python model imports {gone}, which Python {context.target.python}, the container's, no longer has",
            "",
        )
    module = imports.not_found(error)
    if module is None:
        return None
    container = f"the stock container of Triton {context.target.name}"
    for model in context.served:
        for version in model.versions.values():
            if found := imports.import_of(version, module):
                whose = "" if model.name == context.builder.name else f"{model.name}: "
                file = found.file if found.file != OWN else "model.py"
                message = f"{whose}{file} line {found.line} imports {found.name}, which {container} does not have"
                return message, _import_hint(context, model, version, found)
    return f"a Python model imports {module}, which {container} does not have", "vendor it: source.requirements"


def _import_hint(context: StepContext, model: ServedModel, version: Path, found: imports.Import) -> str:
    there = f"the container has the standard library of Python {context.target.python} and numpy {context.target.numpy}"
    if model.is_prebuilt:
        return f"put it into the version; {there}"
    is_own = model.name == context.builder.name
    if is_own:
        folder = context.builder.folder
        for name in (f"{found.root}.py", f"{found.root}/__init__.py"):
            if (folder / name).is_file():
                return f"name the file in {context.builder.file}: source: files: {{{name}: {name}}}"
    others = imports.other_unavailable(version, found.file, PACKAGES)
    lines = dict.fromkeys(imports.requirement(name) for name in (found.name, *others))
    where = context.builder.file if is_own else f"the model.yaml of {model.name}"
    return f"add to source.requirements in {where}: {', '.join(lines)} ({there})"


def _copy_of(model: ServedModel) -> Callable[[str, str], object]:
    """Weights of a prebuilt model can have any name, so none of its files is linked."""
    return shutil.copyfile if model.is_prebuilt else _link


def _link(source: str, target: str) -> None:
    """Weights are large and the trial is short; what onnxruntime refuses to see linked is copied."""
    if source.endswith(".data"):
        shutil.copyfile(source, target)
    else:
        os.link(source, target)
