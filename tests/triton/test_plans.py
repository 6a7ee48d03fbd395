"""TensorRT plans: what their header says, and which TensorRT loads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelwright.triton.file_types import EMPTY, LFS_POINTER, FileType
from modelwright.triton.plans import PlanHeader, TensorRtOf, loads, read_plan, tensorrt_in

HEADER = b"ftrt" + bytes(20) + bytes([10, 13, 0, 35])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEADER + bytes(4096), PlanHeader("10.13.0.35")),
        (HEADER[:4] + b"\x01" + HEADER[5:] + bytes(40), PlanHeader("")),
        (b"", EMPTY),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", LFS_POINTER),
    ],
    ids=["plan", "another serialisation", "empty", "pointer"],
)
def test_a_header_is_read(data: bytes, expected: PlanHeader | FileType, tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(data)
    assert read_plan(path) == expected


@pytest.mark.parametrize(
    ("data", "what"),
    [(HEADER[:20], "a TensorRT plan that is cut short after 20 bytes"), (bytes(99), "of an unknown format")],
    ids=["cut short", "bytes"],
)
def test_a_file_that_is_no_plan_says_what_it_is(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(data)
    found = read_plan(path)
    assert isinstance(found, FileType)
    assert found.what == what


def exactly(version: str) -> TensorRtOf:
    return TensorRtOf(version, None, None)


@pytest.mark.parametrize(
    ("version", "compatible", "runtime", "expected"),
    [
        ("10.5.0.18", False, exactly("10.5.0.18"), True),
        ("10.5.0.26", False, exactly("10.5.0.18"), True),
        ("10.5.0", False, exactly("10.5.0.18"), True),
        ("10.4.0.26", False, exactly("10.5.0.18"), False),
        ("10.4.0.26", True, exactly("10.5.0.18"), True),
        ("10.7.0.23", True, exactly("10.5.0.18"), False),
        ("8.6.1.6", True, exactly("10.5.0.18"), True),
        ("8.5.3.1", True, exactly("10.5.0.18"), False),
        ("8.6.1.6", True, exactly("11.0.0"), False),
        ("10.16.0", True, exactly("11.0.0"), True),
        ("11.0.0", True, exactly("10.5.0.18"), False),
        # Of a release whose TensorRT is not known exactly.
        ("10.13.0.35", False, TensorRtOf(None, "11.0.0", None), False),
        ("10.13.0.35", True, TensorRtOf(None, "11.0.0", None), None),
        ("8.6.1.6", True, TensorRtOf(None, "11.0.0", None), False),
        ("11.0.0.1", False, TensorRtOf(None, "11.0.0", None), None),
        ("11.4.0.1", False, TensorRtOf(None, "11.0.0", None), None),
        ("10.4.0.26", False, TensorRtOf(None, "10.3.0.26", "10.5.0.18"), None),
        ("10.8.0.43", False, TensorRtOf(None, "10.3.0.26", "10.5.0.18"), False),
        ("8.6.1.6", False, TensorRtOf(None, None, "8.6.1"), None),
        ("0.0.0.0", False, TensorRtOf(None, None, "8.6.1"), False),
    ],
)
def test_a_plan_loads_in_the_tensorrt_that_built_it_and_if_compatible_in_later_ones(
    version: str, compatible: bool, runtime: TensorRtOf, expected: bool | None
) -> None:
    assert loads(version, compatible, runtime) is expected


@pytest.mark.parametrize(
    ("release", "text"),
    [
        ("24.10", "10.5.0.18"),
        ("24.09", "10.3.0.26 to 10.5.0.18"),
        ("26.07", "11.0.0 or later"),
        ("23.10", "8.6.1 or earlier"),
    ],
)
def test_releases_that_nobody_documented_lie_between_their_neighbours(release: str, text: str) -> None:
    assert str(tensorrt_in(release)) == text
