"""Samples from files that users bring: what fits, and what is refused."""

from __future__ import annotations

import base64
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import LoadError
from modelwright.loadtest.payloads import sample_files as samplefiles
from modelwright.loadtest.payloads.interface import InterfaceTensor, ModelInterface
from modelwright.loadtest.payloads.sample_files import read_samples
from modelwright.triton.tensors import save_tensors
from modelwright.verification.golden import save_golden

OUTPUT = (InterfaceTensor("y", "FP32", (1,)),)
PLAIN = ModelInterface("m", "1", 8, (InterfaceTensor("x", "FP32", (2,)),), OUTPUT)
IMAGE = ModelInterface("m", "1", 8, (InterfaceTensor("x", "FP32", (1, 2, 2)),), OUTPUT)
VARIABLE = ModelInterface("m", "1", 8, (InterfaceTensor("x", "INT32", (-1, -1)),), OUTPUT)
TEXT = ModelInterface("m", "1", 8, (InterfaceTensor("text", "BYTES", (2,)),), OUTPUT)
TWO = ModelInterface(
    "m", "1", 8, (InterfaceTensor("x", "FP32", (2,)), InterfaceTensor("bias", "INT8", (1,), optional=True)), OUTPUT
)


def values(samples: list[Any]) -> list[dict[str, Any]]:
    return [{name: array.tolist() for name, array in sample.items()} for sample in samples]


def written(folder: Path, data: Any, name: str = "samples.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize("prefix", ["", "input/"])
def test_the_first_axis_of_an_npz_counts_the_samples(tmp_path: Path, prefix: str) -> None:
    arrays = {f"{prefix}x": np.arange(6, dtype=np.float32).reshape(3, 2)}
    outputs: dict[str, Any] = {"output/y": np.zeros((3, 1))} if prefix else {}
    savez(**arrays, **outputs)(tmp_path / "s.npz")
    assert values(read_samples(PLAIN, tmp_path / "s.npz")) == [{"x": [0, 1]}, {"x": [2, 3]}, {"x": [4, 5]}]


def test_scalars_of_an_npz_get_the_dimension_that_they_are_sent_with(tmp_path: Path) -> None:
    interface = ModelInterface("m", "1", 8, (InterfaceTensor("length", "INT64", (1,)),), OUTPUT)
    np.savez(tmp_path / "s.npz", length=np.array([4, 7]))
    assert values(read_samples(interface, tmp_path / "s.npz")) == [{"length": [4]}, {"length": [7]}]


def test_golden_samples_of_several_sizes(tmp_path: Path) -> None:
    samples = [{"x": np.array([[1]], np.int32)}, {"x": np.array([[2, 3]], np.int32)}]
    save_golden(tmp_path / "golden.npz", samples, [{"y": np.zeros(1, np.float32)}] * 2, 0)
    assert values(read_samples(VARIABLE, tmp_path / "golden.npz")) == [{"x": [[1]]}, {"x": [[2, 3]]}]


def test_floats_of_a_file_are_rounded_for_an_input_of_bfloat16(tmp_path: Path) -> None:
    interface = ModelInterface("m", "1", 8, (InterfaceTensor("x", "BF16", (2,)),), OUTPUT)
    numbers = [[1.0, 3.1415927]]
    np.savez(tmp_path / "s.npz", x=np.array(numbers, np.float32))
    path = written(tmp_path, [{"x": row} for row in numbers])
    for found in (read_samples(interface, tmp_path / "s.npz"), read_samples(interface, path)):
        assert [(sample["x"].dtype.name, sample["x"].tolist()) for sample in found] == [("bfloat16", [1.0, 3.140625])]


@pytest.mark.parametrize("kind", ["S", "U", "ours"])
def test_strings_of_an_npz(tmp_path: Path, kind: str) -> None:
    texts = [["größe", "b"]]
    encoded = np.char.encode(np.array(texts), "utf-8")
    if kind == "ours":
        save_tensors(tmp_path / "s.npz", {"text": encoded.astype(object)})
    else:
        np.savez(tmp_path / "s.npz", text=encoded if kind == "S" else np.array(texts))
    assert values(read_samples(TEXT, tmp_path / "s.npz")) == [{"text": ["größe".encode(), b"b"]}]


B64 = base64.b64encode(np.array([1, 2], "<f4").tobytes()).decode()
STRINGS = base64.b64encode(b"\x01\x00\x00\x00a\x02\x00\x00\x00bc").decode()
ONE_TEXT = ModelInterface("m", "1", 8, (InterfaceTensor("text", "BYTES", (1,)),), OUTPUT)


@pytest.mark.parametrize(
    ("interface", "data", "expected"),
    [
        pytest.param(PLAIN, {"x": [1, 2.5]}, [{"x": [1, 2.5]}], id="one sample"),
        pytest.param(PLAIN, [{"x": [1, 2]}, {"x": [3, 4]}], [{"x": [1, 2]}, {"x": [3, 4]}], id="a list"),
        pytest.param(PLAIN, {"data": [{"x": [1, 2]}, {"x": [3, 4]}]}, [{"x": [1, 2]}, {"x": [3, 4]}], id="data"),
        pytest.param(PLAIN, {"data": [[{"x": [1, 2]}], [{"x": [3, 4]}]]}, [{"x": [1, 2]}, {"x": [3, 4]}], id="streams"),
        pytest.param(PLAIN, {"data": [{"x": {"content": [1, 2], "shape": [2]}}]}, [{"x": [1, 2]}], id="content"),
        pytest.param(PLAIN, {"data": [{"x": {"b64": B64}}]}, [{"x": [1, 2]}], id="b64"),
        pytest.param(PLAIN, {"data": [{"x": {"content": {"b64": B64}, "shape": [2]}}]}, [{"x": [1, 2]}], id="b64 in content"),
        pytest.param(PLAIN, {"data": [{"x": {"content": [1, 2, 3, 4], "shape": [2, 2]}}]}, [{"x": [1, 2]}, {"x": [3, 4]}], id="the batch in the shape"),
        pytest.param(ONE_TEXT, {"text": [["a"], ["b"]]}, [{"text": [b"a"]}, {"text": [b"b"]}], id="the batch in lists"),
        pytest.param(PLAIN, {"data": [{"x": [1, 2]}], "validation_data": [{"y": [3]}]}, [{"x": [1, 2]}], id="answers to compare"),
        pytest.param(IMAGE, {"x": [1, 2, 3, 4]}, [{"x": [[[1, 2], [3, 4]]]}], id="a flat row in the model's shape"),
        pytest.param(VARIABLE, {"x": {"content": [1, 2, 3, 4], "shape": [1, 4]}}, [{"x": [[1, 2, 3, 4]]}], id="shape"),
        pytest.param(VARIABLE, {"x": [[1, 2], [3, 4]]}, [{"x": [[1, 2], [3, 4]]}], id="nested"),
        pytest.param(VARIABLE, {"x": [[], []]}, [{"x": [[], []]}], id="empty rows"),
        pytest.param(TEXT, {"text": ["ü", ""]}, [{"text": ["ü".encode(), b""]}], id="strings"),
        pytest.param(TEXT, {"text": {"b64": STRINGS}}, [{"text": [b"a", b"bc"]}], id="strings with lengths in b64"),
        pytest.param(ONE_TEXT, {"text": {"b64": base64.b64encode(b"plain").decode()}}, [{"text": [b"plain"]}], id="a string in b64"),
        pytest.param(ONE_TEXT, {"text": "plain"}, [{"text": [b"plain"]}], id="a string alone"),
        pytest.param(TWO, [{"x": [1, 2]}, {"x": [1, 2], "bias": [3]}], [{"x": [1, 2]}, {"x": [1, 2], "bias": [3]}], id="optional"),
    ],
)  # fmt: skip
def test_the_forms_of_json(tmp_path: Path, interface: ModelInterface, data: Any, expected: Any) -> None:
    assert values(read_samples(interface, written(tmp_path, data))) == expected


def test_an_input_can_be_called_data(tmp_path: Path) -> None:
    interface = ModelInterface("m", "1", 0, (InterfaceTensor("data", "FP32", (2,)),), OUTPUT)
    assert values(read_samples(interface, written(tmp_path, {"data": [1, 2]}))) == [{"data": [1, 2]}]


def test_a_given_shape_is_for_flat_values(tmp_path: Path) -> None:
    samples = read_samples(VARIABLE, written(tmp_path, {"x": [1, 2, 3, 4]}), {"x": [4, 1]})
    assert values(samples) == [{"x": [[1], [2], [3], [4]]}]


def test_a_folder_of_raw_files_is_one_sample(tmp_path: Path) -> None:
    interface = ModelInterface(
        "m", "1", 8, (InterfaceTensor("x", "FP32", (2,)), InterfaceTensor("text", "BYTES", (2,))), OUTPUT
    )
    (tmp_path / "x").write_bytes(np.array([1, 2], "<f4").tobytes())
    (tmp_path / "text").write_text("one\ntwo words\n")
    (tmp_path / "y").write_bytes(b"what perf_analyzer would compare with")
    assert values(read_samples(interface, tmp_path)) == [{"x": [1, 2], "text": [b"one", b"two words"]}]


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    written(tmp_path, [{"x": [3, 4]}, {"x": [5, 6]}], "b.json")
    np.savez(tmp_path / "a.npz", x=np.array([[1, 2]], np.float32))
    (tmp_path / ".hidden").write_text("an editor's")
    assert values(read_samples(PLAIN, tmp_path)) == [{"x": [1, 2]}, {"x": [3, 4]}, {"x": [5, 6]}]


@pytest.mark.parametrize(
    ("interface", "data", "message"),
    [
        pytest.param(PLAIN, "", r"samples\.json: empty file$", id="empty file"),
        pytest.param(PLAIN, "[1, 2", r"samples\.json: not JSON: .*line 1 column", id="truncated"),
        pytest.param(PLAIN, "[" * 100_000, r"not JSON: ", id="deeper than the stack"),
        pytest.param(PLAIN, '{"x": [1' + "0" * 5000 + ", 2]}", r"not JSON: Exceeds the limit", id="endless number"),
        pytest.param(PLAIN, "[]", r"samples\.json: no samples\n  hint: one is enough", id="no samples"),
        pytest.param(PLAIN, {"data": []}, r"no samples", id="no data"),
        pytest.param(PLAIN, [{"x": [1, 2]}, 3], r"sample 1: is int, expected an object", id="no object"),
        pytest.param(PLAIN, {"X": [1, 2]}, r"sample 0: m has no input 'X'\n  hint: known: x", id="unknown input"),
        pytest.param(TWO, {"x": [1, 2], "bais": [1]}, r"no input 'bais'\n  hint: did you mean 'bias'\?", id="misspelt"),
        pytest.param(TWO, {"bias": [1]}, r"sample 0: input 'x' of m is missing\n  hint: the sample has bias", id="missing"),
        pytest.param(PLAIN, {"x": [1, 2, 3]}, r"input 'x': shape \[2\] takes 2 values, got 3", id="too many values"),
        pytest.param(PLAIN, {"x": [[1], [2]]}, r"input 'x': the model takes \[2\], got \[2, 1\]", id="rank"),
        pytest.param(replace(PLAIN, max_batch_size=0), {"x": [[1, 2]]}, r"takes \[2\], got \[1, 2\]", id="no batch dimension"),
        pytest.param(TWO, {"x": [[1, 2]], "bias": [3]}, r"input 'x': the model takes \[2\], got \[1, 2\]", id="one with the batch"),
        pytest.param(PLAIN, {"x": [[1], [2, 3]]}, r"input 'x': .*inhomogeneous.*\n  hint: a tensor is rectangular", id="ragged"),
        pytest.param(TEXT, {"text": [["a"], ["b", "c"]]}, r"lists of different lengths", id="ragged strings"),
        pytest.param(PLAIN, {"x": ["a", "b"]}, r"the model takes FP32, got \['a', 'b'\]", id="strings for numbers"),
        pytest.param(PLAIN, {"x": [1, None]}, r"the model takes FP32, got \[1, None\]", id="null"),
        pytest.param(TEXT, {"text": [1, 2]}, r"the model takes strings, got 1", id="numbers for strings"),
        pytest.param(TEXT, '{"text": ["\\ud800", "a"]}', r"input 'text': .*surrogates not allowed", id="no Unicode"),
        pytest.param(VARIABLE, {"x": [[1.5]]}, r"the model takes INT32, got \[\[1\.5\]\]", id="float for integer"),
        pytest.param(VARIABLE, {"x": [[2**31]]}, r"2147483648 does not fit INT32", id="too large"),
        pytest.param(VARIABLE, {"x": [[2**70]]}, r"the model takes INT32, got", id="far too large"),
        pytest.param(PLAIN, {"x": [1e39, 0]}, r"1e\+39 does not fit FP32", id="overflow"),
        pytest.param(VARIABLE, {"x": [1, 2]}, r"2 values need a shape that fits \[-1, -1\]\n  hint: .*\"shape\"", id="no shape"),
        pytest.param(VARIABLE, {"x": {"content": [1, 2], "shape": [3]}}, r"shape \[3\] takes 3 values, got 2", id="wrong shape"),
        pytest.param(VARIABLE, {"x": {"content": [1, 2], "shape": [2]}}, r"the model takes \[-1, -1\], got \[2\]", id="wrong rank"),
        pytest.param(VARIABLE, {"x": {"content": [1], "shape": [-1]}}, r"shape \[-1\]: expected a list of sizes", id="-1"),
        pytest.param(VARIABLE, {"x": {"shape": [1]}}, r"no values: expected content or b64", id="no content"),
        pytest.param(PLAIN, {"x": {"contents": [1]}}, r"unknown key 'contents'\n  hint: known: content", id="unknown key"),
        pytest.param(PLAIN, {"x": {"b64": "?"}}, r"no values: expected content or b64: ", id="no base64"),
        pytest.param(PLAIN, {"x": {"b64": "AAAA"}}, r"3 bytes are not a multiple of a FP32 value", id="bytes left over"),
    ],
)  # fmt: skip
def test_json_that_does_not_fit_is_refused(tmp_path: Path, interface: ModelInterface, data: Any, message: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(LoadError, match=f"(?s){message}"):
        read_samples(interface, path)


def savez(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def truncated(path: Path) -> None:
    np.savez(path, x=np.zeros((100, 2), np.float32))
    path.write_bytes(path.read_bytes()[:-100])


def damaged(path: Path) -> None:
    np.savez(path, x=np.zeros((100, 2), np.float32))
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)


def claiming(shape: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8)

    return write


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": 1}))


STRING_ENDS = {"text#bytes": np.zeros(3, np.uint8), "text#ends": np.array([[1.5, 2.0]])}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(savez(x=np.zeros((3, 2))), r"sample 0: input 'x': the model takes FP32, got FP64\n  hint: .*astype\('float32'\)", id="data type"),
        pytest.param(savez(x=np.zeros((3, 2), complex)), r"takes FP32, got complex128", id="complex"),
        pytest.param(savez(x=np.zeros((3, 5), np.float32)), r"the model takes \[2\], got \[5\]", id="shape"),
        pytest.param(savez(x=np.zeros(2, np.float32)), r"the model takes \[2\], got \[\]", id="no first axis"),
        pytest.param(savez(x=np.float32(1)), r"arrays of different lengths: x \[\]", id="scalar"),
        pytest.param(savez(x=np.zeros((0, 2), np.float32)), r"no samples", id="no samples"),
        pytest.param(savez(), r"s\.npz: empty file", id="no arrays"),
        pytest.param(savez(x=np.zeros((3, 2), np.float32), bias=np.zeros((2, 1), np.int8)), r"arrays of different lengths: x \[3, 2\], bias \[2, 1\]", id="lengths"),
        pytest.param(savez(z=np.zeros((3, 2), np.float32)), r"m has no input 'z'", id="name"),
        pytest.param(savez(x=np.array([{}], object)), r"\n  hint: its strings are pickled, which could run code", id="pickled array"),
        pytest.param(savez(**STRING_ENDS), r"cannot be read as \.npz", id="string offsets that are none"),
        pytest.param(pickled, r"cannot be read as \.npz: File is not a zip file\n  hint: write it with numpy\.savez", id="pickle"),
        pytest.param(truncated, r"cannot be read as \.npz", id="truncated"),
        pytest.param(damaged, r"cannot be read as \.npz: Bad CRC", id="damaged"),
        pytest.param(claiming("(1000000000000, 2)"), r"cannot be read as \.npz", id="claims terabytes"),
        pytest.param(claiming("(10, 2)"), r"cannot be read as \.npz", id="claims more than it has"),
        pytest.param(claiming("(__import__('os'),)"), r"cannot be read as \.npz", id="code in a header"),
        pytest.param(lambda path: path.touch(), r"s\.npz: empty file", id="empty file"),
    ],
)  # fmt: skip
def test_npz_that_does_not_fit_is_refused(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "s.npz")
    with pytest.raises(LoadError, match=f"(?s){message}"):
        read_samples(TWO, tmp_path / "s.npz")


def test_a_small_file_that_holds_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplefiles, "MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((1 << 20, 2), np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    with pytest.raises(LoadError, match=r"bomb\.npz: \d+\.\d MB, at most 1\.0 MB are read\n  hint: keep fewer"):
        read_samples(PLAIN, tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: None, r"no such file", id="missing"),
        pytest.param(lambda path: path.mkdir(), r"empty folder", id="empty folder"),
        pytest.param(lambda path: path.write_text("x"), r"neither \.npz nor \.json", id="another kind"),
        pytest.param(lambda path: (path.mkdir(), (path / "x").write_bytes(b"1234567")), r"7 bytes are not a multiple", id="raw size"),
        pytest.param(lambda path: (path.mkdir(), (path / "x").write_bytes(b"1234")), r"shape \[2\] takes 2 values, got 1", id="raw count"),
        pytest.param(lambda path: (path.mkdir(), (path / "x").write_bytes(b"12345678"), (path / "bais").touch()), r"no input 'bais'\n  hint: did you mean 'bias'", id="raw name"),
        pytest.param(lambda path: (path.mkdir(), (path / "z").write_bytes(b"1")), r"neither \.npz nor \.json", id="no input's name"),
    ],
)  # fmt: skip
def test_an_invalid_payload_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "given")
    with pytest.raises(LoadError, match=message):
        read_samples(TWO, tmp_path / "given")


def test_a_device_is_not_read() -> None:
    with pytest.raises(LoadError, match=r"/dev/zero: no such file"):
        read_samples(PLAIN, Path("/dev/zero"))
