"""Batch sizes, and the samples that contenders are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.bench.inputs import alike, batch_of, batch_sizes, check_batches, described, sized
from modelwright.errors import LoadError
from modelwright.project.spec import Builder, ModelSpec, SourceSpec, TensorSpec

TOKENS = [
    TensorSpec(name="ids", dtype="INT64", shape=("sequence",)),
    TensorSpec(name="mask", dtype="INT64", shape=("sequence",)),
]


def builder(**serving: Any) -> Builder:
    spec = ModelSpec.model_construct(name="m", source=SourceSpec(kind="onnx"), serving=serving)
    return Builder(Path(), "m/model.yaml", spec)


@pytest.mark.parametrize(
    ("largest", "serving", "expected"),
    [
        (0, {}, [1]),
        (1, {}, [1]),
        (2, {}, [1, 2]),
        (64, {}, [1, 8, 64]),
        (32, {"dynamic_batching": {}}, [1, 4, 32]),
        (64, {"dynamic_batching": {"preferred_batch_size": [4, 16, 64]}}, [1, 16, 64]),
    ],
    ids=["no batches", "one row", "two", "a middle one", "no preference", "the preferred one"],
)
def test_batch_sizes_are_one_the_middle_and_the_largest(
    largest: int, serving: dict[str, Any], expected: list[int]
) -> None:
    assert batch_sizes(builder(**serving), largest) == expected


def test_a_batch_that_a_contender_does_not_take_is_an_error() -> None:
    assert check_batches([8, 1, 8], {"digits": 64}) == [1, 8]
    with pytest.raises(LoadError, match=r"--batch 64: digits_int8 takes at most 32 \(max_batch_size is 32\)"):
        check_batches([1, 64], {"digits": 64, "digits_int8": 32})
    with pytest.raises(LoadError, match=r"--batch 2: m takes at most 1 \(it has no batch dimension\)"):
        check_batches([2], {"m": 0})


def test_named_dimensions_are_cut_or_repeated_alike() -> None:
    sample = {"ids": np.array([5, 6, 7]), "mask": np.array([1, 1, 0])}
    (longer,) = sized([sample], TOKENS, {"sequence": 5})
    assert longer["ids"].tolist() == [5, 6, 7, 5, 6]
    assert longer["mask"].tolist() == [1, 1, 0, 1, 1]
    (shorter,) = sized([sample], TOKENS, {"sequence": 2})
    assert shorter["ids"].tolist() == [5, 6]


def test_a_dimension_without_a_name_is_called_by_its_axis() -> None:
    spec = [TensorSpec(name="x", dtype="FP32", shape=(3, -1))]
    (found,) = sized([{"x": np.ones((3, 4), np.float32)}], spec, {"x[1]": 2})
    assert found["x"].shape == (3, 2)


@pytest.mark.parametrize(
    ("specs", "hint"),
    [
        (TOKENS, "sequence"),
        ([TensorSpec(name="x", dtype="FP32", shape=(3,))], "every dimension of its inputs is fixed"),
    ],
    ids=["another", "none"],
)
def test_an_unknown_dimension_is_an_error(specs: list[TensorSpec], hint: str) -> None:
    with pytest.raises(LoadError, match="--size sequenze: no dynamic dimension of this name") as raised:
        sized([{}], specs, {"sequenze": 64})
    assert hint in raised.value.hint


def test_a_batch_is_of_the_size_that_most_samples_have() -> None:
    samples = [{"x": np.zeros(size, np.float32)} for size in (3, 5, 5)]
    chosen = alike(samples)
    assert [sample["x"].shape for sample in chosen] == [(5,), (5,)]
    assert batch_of(chosen, 7, batched=True)["x"].shape == (7, 5)
    assert batch_of(chosen, 1, batched=False)["x"].shape == (5,)
    assert described(chosen, {"sequence": 5}) == "golden samples, with sequence = 5: x [5]"
