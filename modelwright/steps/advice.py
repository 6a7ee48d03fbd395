"""What to say and do where a model of a trial does not find what it imports, or calls."""

from __future__ import annotations

import re
from pathlib import Path

from modelwright.kinds.python import PythonSource
from modelwright.steps import imports
from modelwright.steps.context import ServedModel, StepContext
from modelwright.steps.python import OWN, PACKAGES
from modelwright.steps.vendor import abi_conflicts

_NOT_READY = re.compile(r"[Mm]odel '([^']+)' is not ready")  # says a BLS call of a model that is not loaded


def advice(context: StepContext, error: str, python_version: str) -> tuple[str, str]:
    """A message and a hint about the server's `error`; the message is '' where the server's own is best, both are ''
    where the error is about something else.

    `python_version` is that of the interpreter in which the local server runs Python models.
    """
    target = context.target
    if called := _NOT_READY.search(error):
        return "", _call_hint(context, called[1])
    if hint := _other_python(context, error, ".".join(python_version.split(".")[:2])):
        return "", hint
    if gone := imports.left_standard_library(error):
        message = f"a Python model imports {gone}, which Python {target.python}, the container's, no longer has"
        return message, "use what replaced it: https://docs.python.org/3/whatsnew/"
    module = imports.not_found(error)
    if module is None:
        return "", ""
    container = f"the stock container of Triton {target.name}"
    for model in context.served:
        for version in model.versions.values():
            if found := imports.import_of(version, module):
                whose = "" if model.name == context.builder.name else f"{model.name}: "
                file = found.file if found.file != OWN else "model.py"
                message = f"{whose}{file} line {found.line} imports {found.name}, which {container} does not have"
                return message, _hint(context, model, version, found)
    return f"a Python model imports {module}, which {container} does not have", "vendor it: source.requirements"


def _call_hint(context: StepContext, model: str) -> str:
    """A trial serves a model and the composing models that model.yaml names, and so does every replay."""
    if any(model == served.name for served in context.served):
        return ""
    is_own = isinstance(context.builder.spec.source, PythonSource)
    where = context.builder.file if is_own else "the model.yaml of the model that calls it"
    return f"declare in {where} that model.py calls {model}: source: {{kind: python, calls: [{model}]}}"


def _other_python(context: StepContext, error: str, python: str) -> str:
    """What is vendored is for the target's Python; the local server's may be another, which cannot load all of it."""
    folders = [version / PACKAGES for model in context.served for version in model.versions.values()]
    conflicts = [name for folder in folders for name in abi_conflicts(folder, python)]
    modules = [name.partition(".")[0].replace("/", ".") for name in conflicts]
    if not any(f"'{word}'" in error for name in modules for word in (name, name.rpartition(".")[2])):
        return ""
    wanted = context.target.python
    reason = f"{conflicts[0]} is for the target's Python {wanted}, the local server runs {python}"
    return f"{reason}: put a python{wanted} on PATH, remove .modelwright/server, and build again"


def _hint(context: StepContext, model: ServedModel, version: Path, found: imports.Import) -> str:
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
