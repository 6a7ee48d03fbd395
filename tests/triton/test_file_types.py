"""What a file is, by its bytes: of each kind that people put in place of a model by mistake."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from modelwright.onnx.identity import identity_model
from modelwright.triton import file_types
from modelwright.triton.file_types import FileType, file_type, pointer, safetensors_problem

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 90387630\n"


def zipped(*names: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 40)
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"), io.BytesIO())
    return data.getvalue()


def numpy_file(*, many: bool) -> bytes:
    data = io.BytesIO()
    if many:
        np.savez(data, x=np.zeros(2))
    else:
        np.save(data, np.zeros(2))
    return data.getvalue()


def safetensors(sizes: dict[str, int], cut: int | None = None) -> bytes:
    """A file with tensors of so many bytes."""
    at, header = 0, {}
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return (len(text).to_bytes(8, "little") + text + bytes(at))[:cut]


PLAN = b"ftrt" + bytes(20) + bytes([10, 13, 0, 35]) + bytes(50)
METADATA = b'{"description": "Ultralytics YOLO11n model"}'

KNOWN: dict[str, tuple[bytes, FileType]] = {
    "empty": (b"", file_types.EMPTY),
    "Git LFS": (POINTER, file_types.LFS_POINTER),
    "Git LFS before its first release": (POINTER.replace(b"git-lfs.github", b"hawser.github"), file_types.LFS_POINTER),
    "git-annex": (b"/annex/objects/SHA256E-s12--aa.onnx\n", file_types.ANNEX_POINTER),
    "web page": (b"\xef\xbb\xbf\n<!DOCTYPE HTML>\n<html></html>", file_types.HTML),
    "web page without a doctype": (b"<HTML><body>Sign in</body></HTML>", file_types.HTML),
    "web page that is XML": (b'<?xml version="1.0"?><html xmlns="x"></html>', file_types.HTML),
    "store's error": (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', file_types.XML),
    "JSON": (b'{"error": "Entry not found"}', file_types.JSON),
    "long JSON": (json.dumps({f"key{number}": [number] for number in range(500)}).encode(), file_types.JSON),
    "plan": (PLAN, file_types.PLAN),
    "plan with metadata": (len(METADATA).to_bytes(4, "little") + METADATA + PLAN, file_types.ENGINE_WITH_METADATA),
    "zip": (zipped("model.onnx"), file_types.ZIP),
    "zip cut short": (zipped("model.onnx")[:60], file_types.CUT_SHORT_ZIP),
    "TorchScript": (zipped("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"), file_types.TORCHSCRIPT),
    "torch.export": (zipped("net/models/model.json", "net/archive_format"), file_types.EXPORTED_PROGRAM),
    "torch.export, older": (zipped("serialized_exported_program.json", "version"), file_types.OLD_PROGRAM),
    "AOTInductor": (zipped("net/data/aotinductor/model/a.so", "net/archive_format"), file_types.COMPILED_PROGRAM),
    "TorchServe": (zipped("net.pt", "MAR-INF/MANIFEST.json"), file_types.TORCHSERVE),
    "checkpoint": (zipped("archive/data.pkl", "archive/data/0"), file_types.CHECKPOINT),
    "pickle": (pickle.dumps({"weights": [1.0]}), file_types.PICKLE),
    "npz": (numpy_file(many=True), file_types.NUMPY),
    "npy": (numpy_file(many=False), file_types.NUMPY),
    "safetensors": (safetensors({"w": 12}), file_types.SAFETENSORS),
    "ORT": (b"\x18\x00\x00\x00ORTM" + bytes(40), file_types.ORT),
}


@pytest.mark.parametrize(("data", "expected"), KNOWN.values(), ids=KNOWN)
def test_a_known_file_is_named(data: bytes, expected: FileType, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(data)
    assert file_type(path) == expected


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (tarred(), "a tar archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes"),
        (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite model"),
        (b"Not Found\n", "text: 'Not Found'"),
        (("é" * 2000).encode(), f"text: '{'é' * 60}…'"),
        (b"\n \n", "text, and blank"),
    ],
    ids=["gzip", "tar", "hdf5", "tflite", "text", "text that is cut within a letter", "blank"],
)
def test_other_files_are_described(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(data)
    found = file_type(path)
    assert found is not None
    assert found.what == what


@pytest.mark.parametrize(
    "data",
    [
        identity_model(("batch", 2), "FP32", 17, 8, ""),
        bytes(range(256)),
        b"\x80\x02",
        b"\x00" * 9,
        b"\x05\x00\x00\x00{",
    ],
    ids=["ONNX", "bytes", "two bytes of a pickle", "zeros", "a length and a brace"],
)
def test_an_unknown_file_has_no_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(data)
    assert file_type(path) is None


def test_only_a_small_file_is_a_pointer(tmp_path: Path) -> None:
    for name, data in (("small", POINTER), ("large", POINTER + b" " * 1024), ("page", b"<html></html>")):
        (tmp_path / name).write_bytes(data)
    assert pointer(tmp_path / "small") is file_types.LFS_POINTER
    assert pointer(tmp_path / "large") is None
    assert pointer(tmp_path / "page") is None


WHOLE = safetensors({"a": 8, "b": 16})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (WHOLE, ""),
        (safetensors({}), ""),
        (WHOLE[:-4], f"cut short: it has {len(WHOLE) - 4:,} bytes of {len(WHOLE):,}"),
        (WHOLE + b"more", f"damaged: it has {len(WHOLE) + 4:,} bytes of {len(WHOLE):,}"),
        (WHOLE[:30], f"cut short: its header has {len(WHOLE) - 32:,} bytes, the whole file 30"),
        (WHOLE[:5], "not a safetensors file"),
        (b"", "empty"),
        (POINTER, "a Git LFS pointer, not the file"),
        (b"<html></html>", "a web page (HTML)"),
        (zipped("archive/data.pkl"), "a PyTorch checkpoint"),
        (bytes(100), "not a safetensors file"),
    ],
    ids=[
        *("whole", "without tensors", "cut in the weights", "longer", "cut in the header", "five bytes"),
        *("empty", "pointer", "page", "checkpoint", "zeros"),
    ],
)
def test_a_safetensors_file_is_whole_or_says_why_not(data: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert safetensors_problem(path) == problem
