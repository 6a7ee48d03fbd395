"""The recognisers of `new --from`: the first one that knows a thing says what it is."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from modelwright.errors import SpecError
from modelwright.fsops import not_a_file
from modelwright.operations.importing.recogniser import Recogniser, Seen
from modelwright.operations.importing.unknown import unknown_error
from modelwright.project.uris import is_uri

# Modules of this package that have a RECOGNISER. What is told by a file's own marks comes before what is told by names.
_MODULES = (
    "estimators",
    "huggingface",
    "mlflow",
    "model_repository",
    "onnx",
    "pytorch",
    "tensorflow",
    "torchserve",
)


def recognisers() -> list[Recogniser]:
    """All of them, in the order in which they are asked."""
    return [import_module(f"modelwright.operations.importing.{name}").RECOGNISER for name in _MODULES]


def recognised(given: str, path: Path, kind: str | None = None) -> tuple[Seen, Recogniser]:
    """What lies at `path`; `given` is what stands after --from. With `kind`, only what a builder of it is made of.

    Raises SpecError for what is not there, what nobody knows, and what no builder is made of.
    """
    where, is_here = f"--from {given}", not is_uri(given)
    _check_is_there(where, path)
    others: list[Seen] = []
    for recogniser in recognisers():
        try:
            found = recogniser.recognise(path)
        except SpecError as error:
            hint = error.hint if is_here else f"download it first; then {error.hint.replace(str(path), 'FOLDER')}"
            raise SpecError(f"{where}: {error.message}", hint) from None
        except OSError as error:
            raise SpecError(f"{where}: {error.strerror}", "make it readable for this user") from None
        if found and kind in (None, found.kind):
            return found, recogniser
        others += [found] if found else []
    if others:
        hint = f"leave --kind out: a builder of kind {others[0].kind} is made around it"
        raise SpecError(f"--kind {kind}: {given} is {others[0].what}", hint)
    raise unknown_error(given, path, [recogniser.takes for recogniser in recognisers()])


def _check_is_there(where: str, path: Path) -> None:
    if not os.path.lexists(path):
        raise SpecError(f"{where}: there is no such file", "name a file or a folder with a model")
    if not path.is_dir() and (problem := not_a_file(path)):
        raise SpecError(f"{where}: {problem}", "name a file or a folder with a model")
