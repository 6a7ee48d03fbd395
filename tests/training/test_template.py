"""`new --template classifier` and `preview`."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from modelwright.errors import ModelwrightError
from modelwright.operations.preview import preview
from tests.conftest import Sandbox, TestExecutor


@pytest.mark.torch
def test_the_template_builds_and_can_be_previewed(sandbox: Sandbox, tmp_path: Path) -> None:
    assert sandbox.cli("new", "digit", "--template", "classifier").exit_code == 0
    drawn = preview(sandbox.project, "digit", tmp_path / "a.png", start_executor=TestExecutor)
    width, height, grey = picture(drawn.file)
    assert (width, height) == (8 * 66 - 2, 6 * 66 - 2)
    assert sum(grey[64:66]) == 2 * 255  # between the cells
    assert grey[0:64] != grey[66:130]  # the first line of an original and of what was made of it
    before = drawn.file.read_bytes()
    assert preview(sandbox.project, "digit", start_executor=TestExecutor).file.read_bytes() == before
    with pytest.raises(ModelwrightError, match=r"train\.py has no function 'augmant'"):
        preview(sandbox.project, "digit", augment="train:augmant")
    outcome = sandbox.build("digit")["digit"]
    assert outcome.status == "new", outcome.error
    assert outcome.metrics["held_out_accuracy"] > 0.95


def picture(file: Path) -> tuple[int, int, bytes]:
    """Width, height and the first line of a grey PNG file, read by its own rules."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start])
    lines = zlib.decompress(data[start + 4 : start + 4 + length])
    assert len(lines) == height * (width + 1)
    return width, height, lines[1 : width + 1]


def test_a_model_that_trains_nothing_has_no_preview(sandbox: Sandbox) -> None:
    sandbox.onnx_builder()
    with pytest.raises(ModelwrightError, match=r"source\.kind onnx trains nothing"):
        preview(sandbox.project, "doubled")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--template", "clasifier"),
            "Error: --template: kind torch has no template 'clasifier'\n  hint: known: classifier\n",
        ),
        (("--kind", "onnx", "--template", "classifier"), "hint: there is --kind torch --template classifier"),
    ],
    ids=["a typo", "another kind"],
)
def test_an_unknown_template_is_told_the_known_ones(sandbox: Sandbox, arguments: tuple[str, ...], message: str) -> None:
    result = sandbox.cli("new", "digit", *arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert not (sandbox.root / "builders" / "digit").exists()
