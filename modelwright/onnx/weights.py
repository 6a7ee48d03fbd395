"""The files beside an ONNX file that hold its weights: the graph lists them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from modelwright.errors import SpecError
from modelwright.onnx.scan import OnnxScanError, scan
from modelwright.onnx.signature import Signature
from modelwright.triton.file_types import file_type, pointer

# What puts all weights into one file beside the graph.
SAVE_WEIGHTS = "onnx.save(model, 'm.onnx', save_as_external_data=True, location='m.data')"


def weight_files(path: Path) -> list[tuple[str, int]]:
    """The files that the graph lists, relative to its folder, and how many bytes it reads of each.

    None where the graph cannot be read. Files outside the folder are left out: `check.read_signature` refuses them.
    """
    try:
        signature = scan(path)
    except (OnnxScanError, OSError):
        return []
    return needed(signature)


def needed(signature: Signature) -> list[tuple[str, int]]:
    """The same, of a graph that was read."""
    ends: dict[str, int] = {}
    for tensor in signature.external_tensors:
        end = tensor.offset + (tensor.length or 0)
        ends[tensor.location] = max(end, ends.get(tensor.location, 0))
    return [(name, end) for name, end in sorted(ends.items()) if is_inside(name)]


def is_inside(location: str) -> bool:
    """Whether a location of weights is a file below the graph's folder, as onnxruntime demands."""
    path = PurePosixPath(location)
    return bool(location) and not path.is_absolute() and ".." not in path.parts


def check_weights(files: Iterable[tuple[str, int]], folder: Path, where: str) -> None:
    """Raise SpecError that names every file with weights that is not there, not fetched, or too short.

    `files` are those of `weight_files`.
    """
    missing, pointers, short = [], {}, []
    for name, end in files:
        path = folder / name
        if not path.is_file():
            missing.append(name)
        elif found := pointer(path):
            pointers[name] = found
        elif path.stat().st_size < end:
            is_ = file_type(path)
            short.append(f"{name} {f'is {is_.what}' if is_ else f'has {path.stat().st_size:,} bytes of {end:,}'}")
    if missing:
        what = f"{len(missing)} files that are not there" if len(missing) > 1 else "a file that is not there"
        hint = "copy it beside the graph, under this name" if len(missing) == 1 else "copy them beside the graph"
        raise SpecError(f"{where}: the graph keeps weights in {what}: {', '.join(missing)}", hint)
    for found in pointers.values():  # of one kind, as they come from one clone
        raise SpecError(f"{where}: weights: {', '.join(pointers)}: {found.what}", found.fix)
    if short:
        raise SpecError(f"{where}: weights are incomplete: {', '.join(short)}", "copy or download them again")
