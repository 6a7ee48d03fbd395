"""The plan builder's process on this machine: which GPU it sees, what becomes of it, and what the log says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.errors import StepError
from modelwright.facts.plan import PlanProfile, PlanRequest
from modelwright.gpus import Gpu
from modelwright.project.plan_places import PlanPlaces
from modelwright.steps import plan_local

REQUEST = PlanRequest(
    model="m", release="26.07", tensorrt="", compute_capability="8.9", onnx="", profiles=(PlanProfile(inputs={}),)
)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the step's log. The program is a double, and there are two GPUs."""
    monkeypatch.setattr(plan_local, "PROGRAM", "tests.steps.plan_program_double")
    monkeypatch.setattr(plan_local, "visible_gpus", lambda: (Gpu(0, "NVIDIA A100", "8.0"), Gpu(1, "NVIDIA L4", "8.9")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    return []


def context(said: list[str], timeout_s: float = 600) -> Any:
    return SimpleNamespace(plan_places=PlanPlaces(timeout_s=timeout_s), say=said.append)


def test_the_program_sees_the_gpu_of_the_request_alone(tmp_path: Path, said: list[str]) -> None:
    plan_local.build(tmp_path / "ends", tmp_path / "out", REQUEST, context(said))
    assert said == ["started with --with-parent on '5'"]


def test_a_check_sees_no_gpu(tmp_path: Path, said: list[str]) -> None:
    plan_local.check(tmp_path / "ends", tmp_path / "out", ("8.0", "8.9"), context(said))
    assert said == ["started with --check 8.0,8.9 --with-parent on ''"]


def test_a_builder_that_takes_too_long_is_stopped(tmp_path: Path, said: list[str]) -> None:
    with pytest.raises(StepError, match=r"no plan within 0\.5 s, so the builder was stopped"):
        plan_local.build(tmp_path / "waits", tmp_path / "out", REQUEST, context(said, 0.5))


def test_a_builder_that_dies_leaves_a_line_in_the_log(tmp_path: Path, said: list[str]) -> None:
    """`accept` makes the error: what it wrote, or did not write, is the same from every place."""
    plan_local.build(tmp_path / "dies", tmp_path / "out", REQUEST, context(said))
    assert said[-1] == "the plan builder was ended by signal 9"


def test_a_gpu_that_is_gone_since_the_build_was_planned_is_named(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_local, "visible_gpus", lambda: ())
    with pytest.raises(StepError, match=r"there is no GPU of compute capability 8\.9 here any more"):
        plan_local.build(tmp_path / "ends", tmp_path / "out", REQUEST, context(said))
