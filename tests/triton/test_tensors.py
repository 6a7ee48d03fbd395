"""Tensors in files, and what numpy lacks of Triton's data types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelwright.triton.arrays import datatype_of, is_float, numpy_dtype, rounded
from modelwright.triton.dtypes import BY_CONFIG
from modelwright.triton.tensors import load_tensors, save_tensors


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
