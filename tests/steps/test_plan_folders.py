"""What a plan builder does with a folder that it cannot serve: it says why, and writes nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from modelwright.digest import sha256_file
from modelwright.errors import StepError
from modelwright.facts.plan import ASKED, FAILED, GRAPH, REQUEST, PlanProfile, PlanRequest, ShapeRange
from modelwright.gpus import Gpu
from modelwright.steps import plan_builder, plan_local, plan_program
from modelwright.steps.plan_builder import best_profile
from modelwright.steps.plan_folders import accept, accept_check, serve, write_request
from tests.conftest import doubling_onnx
from tests.variants.plan_double import PlanBuilder

SHAPES = ShapeRange(min=(1, 2), opt=(4, 2), max=(8, 2))


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    """A folder with a request, its graph with weights beside it, and one question."""
    doubling_onnx(tmp_path / "m.onnx")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(b"weights")
    (tmp_path / "asked").mkdir()
    np.savez(tmp_path / "asked" / "one.npz", x=np.ones((1, 2), np.float32))
    request = PlanRequest(
        model="m",
        release="26.07",
        tensorrt="",
        compute_capability="8.9",
        onnx=sha256_file(tmp_path / "m.onnx"),
        weights={"sub/w.bin": sha256_file(tmp_path / "sub" / "w.bin")},
        profiles=(PlanProfile(inputs={"x": SHAPES}),),
    )
    write_request(tmp_path / "in", request, tmp_path / "m.onnx", tmp_path / "asked")
    return tmp_path / "in"


def failure(inside: Path) -> str:
    out = inside.parent / "out"
    assert serve(inside, out) == 1
    assert [path.name for path in out.iterdir()] == [FAILED]
    message: str = json.loads((out / FAILED).read_text())["message"]
    return message


def test_a_request_has_all_its_files(inside: Path) -> None:
    files = {path.relative_to(inside).as_posix() for path in inside.rglob("*") if path.is_file()}
    assert files == {REQUEST, GRAPH, "sub/w.bin", f"{ASKED}/one.npz"}


def cut_short(inside: Path) -> None:
    (inside / GRAPH).unlink()
    (inside / GRAPH).write_bytes(b"x")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (cut_short, "model.onnx: its SHA-256 is not that of the request"),
        (lambda inside: (inside / "sub" / "w.bin").unlink(), "sub/w.bin: the request names it, and it is not there"),
        (lambda inside: (inside / REQUEST).unlink(), "request.json: it is not there"),
        (lambda inside: (inside / REQUEST).write_text("{"), "request.json: damaged: "),
        (lambda inside: (inside / REQUEST).write_text("{}"), "request.json: damaged: model: missing"),
    ],
    ids=["graph", "weights", "no request", "half a request", "another request"],
)
def test_a_folder_that_was_damaged_is_refused(inside: Path, change: Callable[[Path], object], expected: str) -> None:
    change(inside)
    assert failure(inside).startswith(expected)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ((), "CUDA shows no GPU here"),
        (
            (Gpu(0, "NVIDIA A10", "8.6"),),
            "the GPU here, NVIDIA A10, has compute capability 8.6; the plan is wanted for 8.9, and loads on no other",
        ),
    ],
    ids=["none", "another"],
)
def test_a_gpu_that_is_not_the_one_is_named(inside: Path, gpus: tuple[Gpu, ...], expected: str) -> None:
    with mock.patch.object(plan_builder, "visible_gpus", return_value=gpus):
        assert failure(inside) == expected


def test_a_bug_of_the_builder_is_told_too(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(plan_builder, "visible_gpus", side_effect=ZeroDivisionError("no")):
        assert failure(inside) == "the plan builder fails: ZeroDivisionError: no"
    assert "Traceback" in capsys.readouterr().out


def test_the_program_takes_folders(inside: Path) -> None:
    with mock.patch.object(plan_builder, "visible_gpus", return_value=()):
        assert plan_program.main([str(inside), str(inside.parent / "out")]) == 1
    assert (inside.parent / "out" / FAILED).is_file()


def test_a_builder_that_left_nothing_died(inside: Path) -> None:
    (inside.parent / "out").mkdir()
    request = PlanRequest.model_validate_json((inside / REQUEST).read_text())
    with pytest.raises(StepError, match="stopped before it was done"):
        accept(request, inside, inside.parent / "out")
    with pytest.raises(StepError, match="stopped before it was done"):
        accept_check(inside.parent / "out")


def test_a_plan_that_the_target_does_not_load_is_refused(inside: Path) -> None:
    """As another image than that of the target's month makes one."""
    out = inside.parent / "out"
    out.mkdir()
    request = PlanRequest.model_validate_json((inside / REQUEST).read_text())
    PlanBuilder(tensorrt="10.3.0.26").build(inside, out, request)
    with pytest.raises(
        StepError, match=r"TensorRT 10\.3\.0\.26, and Triton 26\.07 loads those of 11\.0\.0 or later"
    ) as caught:
        accept(request, inside, out)
    assert "tensorrt.image" in caught.value.hint


def test_the_profile_with_the_nearest_shape_answers() -> None:
    few = PlanProfile(inputs={"x": ShapeRange(min=(1, 2), opt=(1, 2), max=(4, 2))})
    many = PlanProfile(inputs={"x": ShapeRange(min=(1, 2), opt=(8, 2), max=(8, 2))})
    chosen = [best_profile((few, many), {"x": np.ones((rows, 2))}) for rows in (1, 4, 5, 8)]
    assert chosen == [0, 0, 1, 1]
    with pytest.raises(StepError, match=r"no profile takes x \[9, 2\]"):
        best_profile((few, many), {"x": np.ones((9, 2))})
    with pytest.raises(StepError, match=r"no profile takes x \[2\]"):
        best_profile((few, many), {"x": np.ones(2)})


@pytest.mark.parametrize(
    ("index", "visible", "expected"), [(1, None, "1"), (1, "", "1"), (1, "3,5", "5"), (0, "GPU-1, GPU-2", "GPU-1")]
)
def test_a_gpu_is_chosen_among_the_visible_ones(index: int, visible: str | None, expected: str) -> None:
    assert plan_local._device(index, visible) == expected
