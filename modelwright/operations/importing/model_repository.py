"""Triton model repositories: `modelwright adopt` makes builders of them."""

from __future__ import annotations

import shlex
from pathlib import Path

from modelwright.errors import SpecError
from modelwright.operations.importing.recogniser import NewBuilder, Recogniser, Seen, Written
from modelwright.triton.layout import CONFIG


def recognise(path: Path) -> Seen | None:
    """Raises SpecError for a repository, and for one model of one."""
    if not path.is_dir():
        return None
    models = sorted(item.parent.name for item in path.glob(f"*/{CONFIG}"))
    if (path / CONFIG).is_file():
        folder, name = str(path.absolute().parent), shlex.quote(path.absolute().name)
        raise SpecError("is a model of a Triton repository", f"modelwright adopt {shlex.quote(folder)} {name}")
    if models:
        raise SpecError(
            f"is a Triton model repository with {', '.join(models[:3])}{', …' if len(models) > 3 else ''}",
            f"modelwright adopt {shlex.quote(str(path))} makes builders of its models",
        )
    return None


def _write(found: Seen, new: NewBuilder) -> Written:
    raise AssertionError("no repository is found, as `recognise` refers it to another command")


RECOGNISER = Recogniser(takes="Triton model repositories (by adopt)", recognise=recognise, write=_write)
