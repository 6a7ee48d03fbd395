"""The table of claims: what is said of made-up results. What is true is for `make claims` to measure."""

from __future__ import annotations

import pytest

from benchmarks import claims
from benchmarks.__main__ import replaced
from modelwright.bench.document import Ratio
from modelwright.text import TIMES
from tests.bench.results import latency, result, row, source
from tests.conftest import ROOT


def ratio(low: float, middle: float, high: float) -> Ratio:
    return Ratio(ratio=middle, low=low, high=high, confidence=0.95, rounds=10)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ratio(2.1, 2.5, 3.0), "as promised"),
        (ratio(1.2, 1.4, 1.6), "less"),
        (ratio(4.5, 5.0, 5.5), "more"),
        (ratio(1.8, 1.95, 2.1), "about that"),
    ],
)
def test_a_promise_is_held_by_the_interval(found: Ratio, words: str) -> None:
    assert claims.QUANTISED.held(found) == words


def test_a_row_has_the_ratio_and_the_loss() -> None:
    found = result([source(), row("digits", 1.0), row("digits_int8", 0.4, metrics={"accuracy": 0.9861})])
    pair = claims.Pair(claims.QUANTISED, "digits", "digits_int8", (1, 8))
    (line,) = claims.compared(pair, found, lambda batch: f"{batch} images")
    assert (line.promise, line.model) == (claims.QUANTISED, "digits_int8")
    assert line.measured.startswith("1 images: 2.5")
    assert (line.that_is, line.loss) == ("as promised", "accuracy 0.9900 → 0.9861")


def test_a_smaller_model_is_compared_by_size() -> None:
    found = result([row("digits", 1.0), row("digits_distilled", 0.2, size_bytes=20_000)])
    pair = claims.Pair(claims.DISTILLED, "digits", "digits_distilled", (1,), by_size=True)
    (line,) = claims.compared(pair, found, str)
    assert line.measured == f"5.00 {TIMES} smaller: 100.0 kB → 20.0 kB"


@pytest.mark.parametrize(
    ("contenders", "reason"),
    [
        ([row("digits", 1.0)], "there is no digits_trt in this project"),
        (
            [row("digits", 1.0), row("digits_trt", reason="cannot be made here: no GPU")],
            "cannot be made here: no GPU",
        ),
    ],
    ids=["no such variant", "not here"],
)
def test_what_was_not_run_says_why(contenders: list[object], reason: str) -> None:
    pair = claims.Pair(claims.TENSORRT, "digits", "digits_trt", (8,))
    (line,) = claims.compared(pair, result(contenders), str)  # type: ignore[arg-type]
    assert (line.reason, line.cells[1]) == (reason, "not run, see below")


def test_rows_stand_technique_by_technique_and_each_is_named_once() -> None:
    rows = [claims.Row(claims.BATCHED, "digits", "a"), claims.Row(claims.ONNX, "digits", "b")]
    rows += [claims.Row(claims.ONNX, "minilm", "c")]
    rows += [claims.Row(claims.TENSORRT, model, reason="no GPU") for model in ("digits_trt", "minilm_trt")]
    table = claims.table(rows, result([row("digits", latencies=[latency(1.0)])]), ["other programs kept 1 core busy"])
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| ONNX instead of PyTorch",
        "| ",
        "| TensorRT",
        "| ",
        "| dynamic batching",
    ]
    assert "- digits_trt, minilm_trt: no GPU\n" in table
    assert "AVX2" in table
    assert table.endswith("Other programs kept 1 core busy.")


def test_the_readme_has_the_markers() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "new table" in replaced(readme, claims.NAME, "new table")
