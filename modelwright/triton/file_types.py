"""What a file really is, by its first bytes: for messages about a file that is not what its name says.

    file_type(path)  # FileType("a Git LFS pointer, not the file", "git lfs pull, in the clone that it comes from")

Known are the files that people put in place of a model by mistake, and the model formats that are mistaken for one
another. The rest of a file is not looked at, except where only it says what a zip archive holds.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.fsops import open_file

_HEAD_BYTES = 1024  # a Git LFS pointer is shorter (git-lfs, docs/spec.md)
_LARGEST_HEADER = 100_000_000  # of a safetensors file (its own limit)
_LARGEST_METADATA = 1_000_000  # in front of an engine
_LONGEST_TEXT = 60
PLAN_TAG = b"ftrt"


@dataclass(frozen=True)
class FileType:
    """`what` follows "it is"; `fix` says what to do where a model is wanted."""

    what: str
    fix: str


EMPTY = FileType("empty", "copy or download it again")
LFS_POINTER = FileType("a Git LFS pointer, not the file", "git lfs pull, in the clone that it comes from")
ANNEX_POINTER = FileType("a git-annex pointer, not the file", "git annex get, in the clone that it comes from")
HTML = FileType("a web page (HTML)", "open it in a browser: it says why the download failed; download the file again")
XML = FileType("an XML document", "read it: a store's error message is one; download the file again")
JSON = FileType("a JSON document", "read it: an answer with an error is one; download the file again")
TORCHSCRIPT = FileType("a TorchScript file", "source.kind torchscript takes it")
EXPORTED_PROGRAM = FileType("a program of torch.export", "source.kind pt2 takes it")
OLD_PROGRAM = FileType("a program of torch.export in its older form", "save it again: torch.export.save")
COMPILED_PROGRAM = FileType(
    "a package of AOTInductor, which is compiled code", "use the program that it was compiled from: torch.export.save"
)
TORCHSERVE = FileType("a TorchServe archive", "source.kind torchserve takes it")
CHECKPOINT = FileType("a PyTorch checkpoint", "it holds weights and no graph: load it in a builder of kind torch")
PICKLE = FileType("a Python pickle", "it can run code when it is read: export the model to ONNX where you trust it")
SAFETENSORS = FileType("a safetensors file", "it holds weights and no graph: kind huggingface takes its directory")
PLAN = FileType("a TensorRT plan", "it belongs in a model of the tensorrt backend, as model.plan")
ENGINE_WITH_METADATA = FileType(
    "a TensorRT plan with metadata in front of it, as Ultralytics writes it",
    "cut off the metadata: 4 bytes with its length, and the JSON; what follows is the plan",
)
ZIP = FileType("a zip archive", "unpack it, and name the file inside")
CUT_SHORT_ZIP = FileType("a zip archive that is cut short", "copy or download it again")
NUMPY = FileType("a NumPy file", "it holds arrays and no model")
ORT = FileType("a model in onnxruntime's own format (ORT)", "use the ONNX file that it was made from")

_ANNEX = b"/annex/objects/"
# Bytes at an offset that only files of one type have there.
_SIGNATURES: tuple[tuple[int, bytes, FileType], ...] = (
    (0, PLAN_TAG, PLAN),
    (4, b"ORTM", ORT),
    (4, b"TFL3", FileType("a TensorFlow Lite model", "convert it to ONNX with tf2onnx")),
    (0, b"\x93NUMPY", NUMPY),
    (0, b"\x89HDF", FileType("an HDF5 file, such as Keras writes", "convert the model to ONNX with tf2onnx")),
    (0, b"GGUF", FileType("a GGUF file, for llama.cpp", "no backend of the stock container serves it")),
    (0, b"\x1f\x8b", FileType("compressed with gzip", "gunzip it; a .tar.gz: tar -xf")),
    (0, b"BZh", FileType("compressed with bzip2", "bunzip2 it")),
    (0, b"\xfd7zXZ", FileType("compressed with xz", "unxz it")),
    (0, b"\x28\xb5\x2f\xfd", FileType("compressed with zstd", "unzstd it")),
    (0, b"7z\xbc\xaf\x27\x1c", FileType("a 7-Zip archive", "unpack it, and name the file inside")),
    (257, b"ustar", FileType("a tar archive", "unpack it: tar -xf; and name the file inside")),
    (0, _ANNEX, ANNEX_POINTER),
)
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")


def file_type(path: Path) -> FileType | None:
    """What the file is; None for one that is not known here, as an ONNX file is. Raises OSError."""
    with open_file(path) as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return EMPTY
    if head.startswith(_POINTERS):
        return LFS_POINTER
    for offset, signature, found in _SIGNATURES:
        if head.startswith(signature, offset):
            return found
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and b"." in head[2:]:
        return PICKLE
    return _with_header(path, head) or _text(head)


def pointer(path: Path) -> FileType | None:
    """The file's type if it stands for a file that was not fetched, as a Git LFS pointer does. Raises OSError."""
    if path.stat().st_size > _HEAD_BYTES:
        return None
    with open_file(path) as file:
        head = file.read(_HEAD_BYTES)
    return LFS_POINTER if head.startswith(_POINTERS) else ANNEX_POINTER if head.startswith(_ANNEX) else None


def safetensors_problem(path: Path) -> str:
    """Why a file is not a whole safetensors file; '' when it is one. Raises OSError.

    Eight bytes hold the length of a JSON header, which says where each tensor ends; the last one ends the file.
    """
    size = path.stat().st_size
    with open_file(path) as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) == 8 and 2 <= length <= _LARGEST_HEADER and file.read(1) == b"{":
            if 8 + length > size:
                return f"cut short: its header has {length:,} bytes, the whole file {size:,}"
            file.seek(8)
            ends = _tensor_ends(file.read(length))
            if ends is not None:
                wanted = 8 + length + max(ends, default=0)
                return "" if wanted == size else f"{_cut_or_long(size, wanted)}: it has {size:,} bytes of {wanted:,}"
    found = file_type(path)
    return found.what if found and found is not SAFETENSORS else "not a safetensors file"


def _cut_or_long(size: int, wanted: int) -> str:
    return "cut short" if size < wanted else "damaged"


def _tensor_ends(header: bytes) -> list[int] | None:
    try:
        entries = json.loads(header)
        return [int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None


def _archive(path: Path) -> FileType:
    """What a zip archive holds: torch's and NumPy's files are some."""
    import zipfile

    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            paths = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError):
        return CUT_SHORT_ZIP
    names = {path.rpartition("/")[2] for path in paths}
    if "MAR-INF/MANIFEST.json" in paths:
        return TORCHSERVE
    if any("/aotinductor/" in path for path in paths):
        return COMPILED_PROGRAM
    if "archive_format" in names and any("/models/" in path for path in paths):
        return EXPORTED_PROGRAM
    if "serialized_exported_program.json" in names:
        return OLD_PROGRAM
    if "data.pkl" in names:
        return TORCHSCRIPT if "constants.pkl" in names else CHECKPOINT
    return NUMPY if names and all(name.endswith(".npy") for name in names) else ZIP


def _with_header(path: Path, head: bytes) -> FileType | None:
    """Files that begin with the length of a JSON text: safetensors, and engines that Ultralytics exports."""
    if len(head) < 9:
        return None
    if head[8:9] == b"{" and 2 <= struct.unpack_from("<Q", head)[0] <= _LARGEST_HEADER:
        return SAFETENSORS
    length = struct.unpack_from("<i", head)[0]
    if head[4:5] == b"{" and 2 <= length <= _LARGEST_METADATA:
        with open_file(path) as file:
            file.seek(4 + length)
            return ENGINE_WITH_METADATA if file.read(4) == PLAN_TAG else None
    return None


def _text(head: bytes) -> FileType | None:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a character may be cut at the end of what was read
            return None
        text = head[: error.start].decode("utf-8-sig")
    if not text or not all(char.isprintable() or char in "\t\r\n\f" for char in text):
        return None
    start = text.lstrip()
    if start.lower().startswith(("<!doctype html", "<html")):
        return HTML
    if start.startswith("<?xml"):
        return HTML if "<html" in start.lower() else XML
    if start.startswith(("{", "[")) and _may_be_json(start):
        return JSON
    first = start.splitlines()[0].strip() if start else ""
    shown = first if len(first) <= _LONGEST_TEXT else f"{first[:_LONGEST_TEXT]}…"
    return FileType(f"text: '{shown}'" if shown else "text, and blank", "look into it; copy or download the file again")


def _may_be_json(start: str) -> bool:
    """Whether a text begins as a JSON document does; it may be cut where reading stopped."""
    try:
        document: Any = json.loads(start)
    except json.JSONDecodeError as error:
        return error.pos >= len(start) - 1 or start[1:].lstrip()[:1] in ('"', "{", "[")
    except RecursionError:
        return True
    return isinstance(document, dict | list)
