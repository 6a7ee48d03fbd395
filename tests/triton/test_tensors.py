"""Tensors in files, and what numpy lacks of Triton's data types."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import TensorFileError
from modelwright.triton.arrays import datatype_of, is_float, numpy_dtype, rounded
from modelwright.triton.dtypes import BY_CONFIG
from modelwright.triton.tensors import load_tensors, save_tensors
from modelwright.verification.golden import load_golden


@pytest.mark.parametrize("datatype", [item.name for item in BY_CONFIG.values() if item.name != "BYTES"])
def test_every_data_type_survives_a_file_that_needs_no_pickle(tmp_path: Path, datatype: str) -> None:
    array = np.array([[0, 1], [1, 1]]).astype(numpy_dtype(datatype))
    save_tensors(tmp_path / "t.npz", {"input/x": array})
    (name, loaded), *_ = load_tensors(tmp_path / "t.npz").items()
    assert (name, loaded.dtype, loaded.tolist()) == ("input/x", array.dtype, array.tolist())
    assert datatype_of(loaded) == datatype


def test_bfloat16_is_kept_as_its_bits(tmp_path: Path) -> None:
    save_tensors(tmp_path / "t.npz", {"x": np.array([1.5], numpy_dtype("BF16"))})
    with np.load(tmp_path / "t.npz") as file:
        assert {name: (file[name].dtype.name, file[name].tolist()) for name in file} == {"x#bf16": ("uint16", [0x3FC0])}


def test_floats_are_rounded_for_bfloat16_and_for_nothing_else() -> None:
    values = np.array([1.0, 3.1415927], np.float32)
    assert rounded(values, "BF16").tolist() == [1.0, 3.140625]
    assert rounded(values, "FP16") is values
    whole = np.array([1, 2])
    assert rounded(whole, "BF16") is whole


@pytest.mark.parametrize(
    ("datatype", "is_one"), [("FP16", True), ("BF16", True), ("FP64", True), ("INT8", False), ("BYTES", False)]
)
def test_which_types_are_floats(datatype: str, is_one: bool) -> None:
    assert is_float(numpy_dtype(datatype)) == is_one


def saved(path: Path, **arrays: Any) -> None:
    np.savez(path, **{name.replace("_", "/"): array for name, array in arrays.items()})


def pickled(path: Path) -> None:
    saved(path, input_x=np.array([{}], object), output_y=np.zeros((1, 2)))


def one_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def archive_of(path: Path, *, name: str = "input/x.npy", content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)


def header_of(shape: str, descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def bits_changed(path: Path) -> None:
    saved(path, input_x=np.zeros((1, 2)), output_y=np.zeros((1, 2)))
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickled": (pickled, "pickle"),
    "no zip": (lambda path: path.write_bytes(b"\x80\x04K\x01."), "not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "not a zip file"),
    "cut": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "not a zip file"),
    "one array": (one_array, "not a zip file"),
    "bits changed": (bits_changed, ""),
    "a bomb": (
        partial(archive_of, content=bytes(300_000_000), compression=zipfile.ZIP_DEFLATED),
        r"bytes that would unpack to 300,000,000",
    ),
    "a huge shape": (partial(archive_of, content=header_of("(1" + "0" * 15 + ",)")), ""),
    "a shape below zero": (partial(archive_of, content=header_of("(-1, 4)") + bytes(64)), ""),
    "a shape of numbers without end": (partial(archive_of, content=header_of("(" + "9" * 60 + ",)") + bytes(64)), ""),
    "a header that is none": (partial(archive_of, content=b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16), ""),
    "a type of none": (partial(archive_of, content=header_of("(1,)", "'zz'") + bytes(64)), ""),
    "a structure": (partial(archive_of, content=header_of("(1,)", "[('a', '<f8')]") + bytes(8)), "which no tensor is"),
    "dates": (partial(archive_of, content=header_of("(1,)", "'<M8[s]'") + bytes(8)), "which no tensor is"),
    "strings without bytes": (partial(archive_of, name="input/x#ends.npy", content=header_of("(1,)") + bytes(8)), ""),
    "no array": (partial(archive_of, name="input/x", content=b"text"), ""),
    "nothing": (saved, "it has 0 inputs and 0 outputs"),
    "a number": (partial(saved, output_y=np.array(1.0)), ""),
    "other counts": (partial(saved, input_x=np.zeros((2, 1)), output_y=np.zeros((3, 1))), "2 inputs and 3"),
    "a pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
    "not there": (lambda path: None, "No such file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_golden_samples_that_are_none_end_in_a_message(case: str, tmp_path: Path) -> None:
    make, message = HOSTILE[case]
    make(tmp_path / "golden.npz")
    with pytest.raises(TensorFileError, match=rf"golden.npz: .*{message}"):
        load_golden(tmp_path / "golden.npz")
