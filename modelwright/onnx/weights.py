"""The files beside an ONNX file that hold its weights: the graph lists them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from modelwright.errors import SpecError
from modelwright.onnx.scan import OnnxScanError, scan
from modelwright.triton.file_types import pointer


def weight_files(path: Path) -> list[str]:
    """The files that the graph lists, relative to its folder; none where it cannot be read.

    Files outside the folder are left out: `check.read_signature` refuses them, and what is not ONNX.
    """
    try:
        names = scan(path).external
    except (OnnxScanError, OSError):
        return []
    return [name for name in names if is_inside(name)]


def is_inside(location: str) -> bool:
    """Whether a location of weights is a file below the graph's folder, as onnxruntime demands."""
    path = PurePosixPath(location)
    return bool(location) and not path.is_absolute() and ".." not in path.parts


def check_weights(names: Iterable[str], folder: Path, where: str) -> None:
    """Raise SpecError that names every file with weights that is not there, or is a Git LFS pointer."""
    missing, pointers = [], {}
    for name in names:
        if not (folder / name).is_file():
            missing.append(name)
        elif found := pointer(folder / name):
            pointers[name] = found
    if missing:
        files = f"{len(missing)} files that are not there" if len(missing) > 1 else "a file that is not there"
        hint = "copy it beside the graph, under this name" if len(missing) == 1 else "copy them beside the graph"
        raise SpecError(f"{where}: the graph keeps weights in {files}: {', '.join(missing)}", hint)
    for found in pointers.values():  # of one kind, as they come from one clone
        raise SpecError(f"{where}: weights: {', '.join(pointers)}: {found.what}", found.fix)
