"""Outputs with another number of rows than the request, by the names of first dimensions."""

from __future__ import annotations

import pytest

from modelwright.onnx.rows import other_rows
from modelwright.onnx.signature import Value


def values(*firsts: str | int | None) -> list[Value]:
    """A tensor for each first dimension; None for a scalar."""
    return [Value(f"t{i}", "tensor", 1, () if first is None else (first, 3)) for i, first in enumerate(firsts)]


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["b"], "t"),
        (["batch"], "found"),
        (["N", "N"], "num_boxes"),
    ],
)
def test_a_name_of_its_own_is_another_number_of_rows(inputs: list[str], output: str) -> None:
    (found,) = other_rows(values(*inputs), values(output))
    assert (found.output, found.name, found.rows) == ("t0", output, inputs[0])


@pytest.mark.parametrize(
    "output",
    [
        *("unk__12", "unk_0", "s12", "u0", "12", "?", "DynamicDimension.3", "Addoutput_dim_0", "output_dynamic_axes_1"),
        *("NonZero_o0__d1", "None", "dim_0", "s0 + 1", "2*batch", "_d0", "unknown"),
    ],
)
def test_a_generated_name_says_nothing(output: str) -> None:
    assert other_rows(values("batch"), values(output)) == []


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        pytest.param(["batch"], "batch", id="the same"),
        pytest.param(["N"], "batch_size", id="two words for a batch"),
        pytest.param(["b"], "n", id="two letters for a batch"),
        pytest.param(["boxes", "batch"], "found", id="inputs differ themselves"),
        pytest.param(["batch", -1], "found", id="an input without a name"),
        pytest.param(["unk__1"], "found", id="inputs with a generated name"),
        pytest.param(["batch", None], "found", id="a scalar input"),
        pytest.param([], "found", id="no input"),
        pytest.param(["batch"], -1, id="an output without a name"),
        pytest.param(["batch"], 4, id="an output of a fixed size"),
        pytest.param(["batch"], None, id="a scalar output"),
    ],
)
def test_where_names_leave_it_open(inputs: list[str | int | None], output: str | int | None) -> None:
    assert other_rows(values(*inputs), values(output)) == []
