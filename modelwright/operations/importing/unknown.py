"""What `new --from` says about a thing that no recogniser knows: what it is, and what can be done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from modelwright.errors import ModelwrightError, SpecError
from modelwright.onnx.check import read_signature
from modelwright.triton.file_types import SAFETENSORS, FileType, file_type

_MOST_NAMES = 5


def unknown_error(given: str, path: Path, takes: Sequence[str]) -> SpecError:
    """The error for a file or folder; `given` is what stands after --from, `takes` lists what --from takes."""
    where = f"--from {given}"
    listed = f"--from takes {', '.join(takes)}"
    if path.is_dir():
        return SpecError(f"{where}: {_folder(path)}", _folder_hint(given, path, listed))
    found = file_type(path)
    if found:
        return SpecError(f"{where}: is {found.what}, of which no builder is made", _hint(found, given))
    if path.suffix == ".onnx":
        try:
            read_signature(path)
        except ModelwrightError as error:
            return SpecError(f"{where}: {error.message}", error.hint)
    return SpecError(f"{where}: it is not known what this file is", listed)


def _hint(found: FileType, given: str) -> str:
    if found is SAFETENSORS:
        folder = given.rpartition("/")[0] or "."
        return f"name the directory that it lies in, with its config.json: --from {shlex.quote(folder)}"
    return f"{found.fix}; modelwright new --help lists what other kinds start from"


def _folder(path: Path) -> str:
    names = sorted(item.name for item in path.iterdir())
    if not names:
        return "is an empty folder"
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"is a folder with {', '.join(names[:_MOST_NAMES])}{more}: it is not known what that is"


def _folder_hint(given: str, path: Path, listed: str) -> str:
    files = sorted(path.glob("*.onnx"))
    if not files:
        return listed
    folder = given.rstrip("/")
    return f"name the file: --from {shlex.quote(f'{folder}/{files[0].name}')}"
