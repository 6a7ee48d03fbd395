from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.errors import VerifyError
from modelwright.triton.tensors import Tensors, load_tensors, save_tensors
from modelwright.verification.golden import MOST, kept_count, load_golden, save_golden
from modelwright.verification.samples import answers_of, columns, pack, request_of, requests, unpack, unstacked


def strings(*values: str) -> Any:
    return np.array([value.encode() for value in values], dtype=object)


RAGGED: list[Tensors] = [
    {"image": np.zeros((3, 8, 8), np.float32), "text": strings("a"), "rate": np.array(16000)},
    {"image": np.ones((3, 16, 8), np.float32), "text": strings("bcd", ""), "rate": np.array(8000)},
]


def same(one: list[Tensors], other: list[Tensors]) -> bool:
    return len(one) == len(other) and all(
        sample.keys() == again.keys()
        and all(
            sample[name].dtype == again[name].dtype
            and sample[name].shape == again[name].shape
            and (sample[name] == again[name]).all()
            for name in sample
        )
        for sample, again in zip(one, other, strict=True)
    )


def test_samples_of_different_sizes_and_scalars_survive_a_file(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x.npz", pack(RAGGED))
    assert same(unpack(load_tensors(tmp_path / "x.npz")), RAGGED)
    save_golden(tmp_path / "golden.npz", RAGGED, RAGGED[::-1], 8)
    inputs, outputs = load_golden(tmp_path / "golden.npz")
    assert same(inputs, RAGGED)
    assert same(outputs, RAGGED[::-1])


def test_samples_of_one_size_are_one_array_in_a_file() -> None:
    """As they were before sizes could differ: published files stay readable by anybody with numpy."""
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    packed = pack(unstacked({"x": x, "n": np.arange(3)}))
    assert {name: array.shape for name, array in packed.items()} == {"x": (3, 2), "n": (3,)}


def test_columns_are_lists_where_sizes_differ() -> None:
    found = columns(RAGGED)
    assert [array.shape for array in found["image"]] == [(3, 8, 8), (3, 16, 8)]
    assert isinstance(found["rate"], np.ndarray)
    assert same(unstacked(found), RAGGED)


def test_a_request_holds_neighbours_of_equal_sizes() -> None:
    samples: list[Tensors] = [{"x": np.zeros(size)} for size in (2, 2, 2, 3, 2)]
    assert [len(part) for part in requests(samples, 2)] == [2, 1, 1, 1]
    assert [len(part) for part in requests(samples, 8)] == [3, 1, 1]
    assert [len(part) for part in requests(samples, 0)] == [1] * 5


def test_a_scalar_is_sent_as_a_tensor_of_one_and_comes_back_as_a_scalar() -> None:
    scalar: list[Tensors] = [{"n": np.array(3)}, {"n": np.array(4)}]
    assert request_of(scalar, batched=True)["n"].tolist() == [[3], [4]]
    assert request_of(scalar[:1], batched=False)["n"].tolist() == [3]
    assert same(answers_of({"n": np.array([[3], [4]])}, 2, {"n"}, batched=True), scalar)
    assert same(answers_of({"n": np.array([3])}, 1, {"n"}, batched=False), scalar[:1])
    single: list[Tensors] = [{"t": np.array(b"a", dtype=object)}]
    assert request_of(single, batched=False)["t"].shape == (1,)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4)), "'boxes' has 2 rows for a request of 4"),
        (np.zeros((5, 4)), "'boxes' has 5 rows for a request of 4"),
        (np.zeros(()), "'boxes' has no batch dimension for a request of 4"),
    ],
)
def test_an_output_needs_a_row_for_each_of_its_request(array: Any, message: str) -> None:
    with pytest.raises(VerifyError, match=message) as caught:
        answers_of({"boxes": array}, 4, (), batched=True)
    assert "samples carry the batch dimension" in caught.value.hint


def test_a_version_keeps_whole_requests() -> None:
    samples: list[Tensors] = [{"x": np.zeros(2)} for _ in range(100)]
    assert kept_count(samples, 48) == 48
    assert kept_count(samples, 32) == 64
    assert kept_count(samples, 100) == MOST  # one request of all samples
    assert kept_count(samples, 0) == MOST
    assert kept_count(samples[:5], 3) == 5
