"""What is known of each Triton release, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.errors import ProjectError
from modelwright.lint.formats import summary
from modelwright.onnx.identity import identity_model
from modelwright.operations.lint import lint_repository
from modelwright.triton.releases import known_releases, newest_whole, release

TEXT = """backend: "onnxruntime"
max_batch_size: 4
input [ { name: "x", data_type: TYPE_BF16, dims: [ 2 ] } ]
output [ { name: "y", data_type: TYPE_BF16, dims: [ 2 ] } ]
"""


def test_a_release_is_known_by_the_onnxruntime_of_its_container() -> None:
    known = release("26.09")
    assert (known.onnxruntime, known.max_opset, known.max_ir, known.server) == ("1.30.0", 26, 13, "2.73.0")
    assert newest_whole() == "26.09"


def test_a_release_of_which_no_source_states_the_onnxruntime_is_not_built_for() -> None:
    assert known_releases()[-1] == "26.10"
    with pytest.raises(ProjectError, match=r"Triton 26\.10: no source states its onnxruntime") as caught:
        release("26.10")
    assert "26.09" in caught.value.hint


def test_lint_says_what_it_cannot_check_for_such_a_release(tmp_path: Path) -> None:
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/config.pbtxt").write_text(TEXT)
    (tmp_path / "m/1/model.onnx").write_bytes(identity_model(["batch", 2], "BF16", opset=99))
    report = lint_repository(tmp_path, target="26.10")
    assert summary(report) == (
        "clean: 1 model for Triton 26.10; no source states its onnxruntime: opsets and IR versions were not checked"
    )
    assert [item.rule.id for item in lint_repository(tmp_path).errors] == ["MW603"]
