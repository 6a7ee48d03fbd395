from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelwright.errors import VerifyError
from modelwright.project.spec import Gates, Tolerance
from modelwright.triton.arrays import numpy_dtype
from modelwright.triton.tensors import Tensors
from modelwright.verification.comparison import compare_outputs
from modelwright.verification.samples import unstacked
from modelwright.verification.tolerances import tolerances


def compare_at(expected: Tensors, actual: Tensors, *, atol: float, rtol: float) -> dict[str, float]:
    return compare_outputs(
        unstacked(expected), unstacked(actual), dict.fromkeys(expected, Tolerance(atol=atol, rtol=rtol))
    )


def floats(*values: float) -> dict[str, Any]:
    return {"y": np.array(values, np.float32)[:, None]}


class TestCompareOutputs:
    def test_equal_within_tolerance(self) -> None:
        result = compare_at(floats(1, 2, 3), floats(1, 2, 3.25), atol=0.25, rtol=0)
        assert result == {"y": 0.25}

    def test_the_message_names_the_worst_output_and_sample(self) -> None:
        expected = {"good": np.zeros((32, 2), np.float32), "logits": np.zeros((32, 2), np.float32)}
        actual = {name: array.copy() for name, array in expected.items()}
        actual["good"][3, 0], actual["logits"][17, 1] = 0.0125, 0.03125
        with pytest.raises(VerifyError) as caught:
            compare_at(expected, actual, atol=0.01, rtol=0)
        assert caught.value.message == (
            "'logits' differs by 3.1e-02 from the source, allowed 1.0e-02 (worst of 32 samples: 17)"
        )

    def test_bfloat16_is_compared_as_floats_are(self) -> None:
        source = {"y": np.array([[1.0], [256.0]], numpy_dtype("BF16"))}
        near = {"y": np.array([[1.0], [258.0]], numpy_dtype("BF16"))}
        allowed = tolerances(Gates(), source)
        assert compare_outputs(unstacked(source), unstacked(near), allowed) == {"y": 2.0}
        with pytest.raises(VerifyError, match=r"differs by 2\.0e\+00"):
            compare_at(source, near, atol=1, rtol=0)
        with pytest.raises(VerifyError, match="'y' is float32, its source bfloat16"):
            compare_at(source, {"y": near["y"].astype(np.float32)}, atol=9, rtol=0)
        nan = {"y": np.array([[1.0], [np.nan]], numpy_dtype("BF16"))}
        with pytest.raises(VerifyError, match="1 of its 2 values are NaN"):
            compare_at(source, nan, atol=9, rtol=0)

    def test_rtol_follows_the_expected_size(self) -> None:
        compare_at(floats(1000.0), floats(1001.0), atol=0, rtol=2e-3)
        with pytest.raises(VerifyError, match=r"allowed 5\.0e-01"):
            compare_at(floats(1000.0), floats(1001.0), atol=0, rtol=5e-4)

    @pytest.mark.parametrize(
        ("expected", "actual", "match"),
        [
            (floats(1, 2), floats(1, np.nan), r"1 of its 2 values are NaN \(first in sample 1\)"),
            (floats(np.nan, 2), floats(np.nan, 2), r"1 of the source's 2 values are NaN \(first in sample 0\)"),
            (floats(1, 2, 3), floats(1, np.inf, np.inf), r"2 of 3 values are infinite in one .*first in sample 1"),
            (floats(np.inf), floats(-np.inf), "1 of 1 values are infinite"),
            (floats(1, 2), floats(1), "1 answers to 2 samples"),
            (floats(1), {"y": np.zeros((1, 2), np.float32)}, r"has shape \[2\], its source \[1\]"),
            (floats(1), {"y": np.array([[1]])}, "is int64, its source float32"),
            (floats(1), {"z": np.array([[1]])}, r"got no \['y'\]"),
        ],
        ids=["nan", "nan-in-source", "inf", "inf-sign", "count", "shape", "type", "names"],
    )
    def test_what_never_agrees(self, expected: Any, actual: Any, match: str) -> None:
        with pytest.raises(VerifyError, match=match):
            compare_at(expected, actual, atol=1e9, rtol=1e9)

    def test_equal_infinities_agree(self) -> None:
        assert compare_at(floats(np.inf, 1), floats(np.inf, 1), atol=0, rtol=0.1) == {"y": 0.0}

    def test_half_precision_does_not_overflow(self) -> None:
        expected, actual = ({"y": np.full((1, 1), value, np.float16)} for value in (60000, -60000))
        with pytest.raises(VerifyError, match=r"differs by 1\.2e\+05"):
            compare_at(expected, actual, atol=1, rtol=0)

    @pytest.mark.parametrize(
        ("expected", "actual"),
        [
            (np.array([[1], [2]]), np.array([[1], [3]])),
            (np.array([[0], [255]], np.uint8), np.array([[0], [0]], np.uint8)),
            (np.array([[True], [True]]), np.array([[True], [False]])),
            (np.array([[b"a"], [b"b"]], object), np.array([[b"a"], [b"c"]], object)),
        ],
        ids=["int64", "uint8", "bool", "bytes"],
    )
    def test_other_types_must_be_equal(self, expected: Any, actual: Any) -> None:
        assert compare_at({"y": expected}, {"y": expected}, atol=0, rtol=0) == {"y": 0.0}
        with pytest.raises(
            VerifyError, match=r"differs in 1 of 2 \w+ values from the source \(worst of 2 samples: 1\)"
        ):
            compare_at({"y": expected}, {"y": actual}, atol=9, rtol=9)

    def test_an_output_without_a_tolerance_must_be_equal(self) -> None:
        assert compare_outputs(unstacked(floats(1)), unstacked(floats(1)), {}) == {"y": 0.0}
        with pytest.raises(VerifyError, match="'y' differs"):
            compare_outputs(unstacked(floats(1)), unstacked(floats(1.0001)), {})
